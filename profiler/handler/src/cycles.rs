//! The processor's cycle counter: how long a handler takes, without a system call.

/// The counter now. Counts up at a constant rate that only [`CycleClock`] knows.
///
/// Async-signal-safe: yes; one instruction. Threads can move between processors whose counters differ a little, so
/// that a later value can be the smaller one.
#[inline]
pub fn now() -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: every x86-64 processor has the instruction, which reads a counter and nothing else.
        unsafe { core::arch::x86_64::_rdtsc() }
    }
    #[cfg(target_arch = "aarch64")]
    {
        let count: u64;
        // SAFETY: Linux lets programs read the virtual counter; nothing else is touched.
        unsafe {
            core::arch::asm!("mrs {}, cntvct_el0", out(reg) count, options(nomem, nostack, preserves_flags));
        }
        count
    }
}

/// A moment by the counter and by the clock. Converts cycles into time by what both have counted since.
#[cfg(feature = "owner")]
#[derive(Clone, Copy, Debug)]
pub struct CycleClock {
    cycles: u64,
    time: std::time::Instant,
}

#[cfg(feature = "owner")]
impl CycleClock {
    /// Begins to compare the counter with the clock.
    pub fn start() -> Self {
        // The thread can be interrupted between the two: of some attempts, the one that took least.
        let attempts = core::iter::repeat_with(|| {
            let time = std::time::Instant::now();
            let cycles = now();
            (time.elapsed(), Self { cycles, time })
        });
        let best = attempts.take(8).min_by_key(|(taken, _)| *taken);
        best.map_or(Self { cycles: 0, time: std::time::Instant::now() }, |(_, clock)| clock)
    }

    /// How long `cycles` take; the more exact the longer this clock has run.
    pub fn duration_of(&self, cycles: u64) -> core::time::Duration {
        let end = Self::start();
        let time = end.time.saturating_duration_since(self.time).as_nanos();
        let counted = u128::from(end.cycles.saturating_sub(self.cycles)).max(1);
        let nanoseconds = u128::from(cycles).saturating_mul(time).checked_div(counted).unwrap_or(0);
        core::time::Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }
}
