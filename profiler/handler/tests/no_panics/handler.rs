//! A signal handler over all of this crate's handler side, to be linked without a panic handler that exists and
//! without an allocator: see `.ci/handler-has-no-panics`.
#![no_std]

use flamewalk_handler::activation::{Activation, ActivationLayout, Activations, Next};
use flamewalk_handler::arch::{Native, Registers};
use flamewalk_handler::code::CodeTable;
use flamewalk_handler::cycles;
use flamewalk_handler::host::NoHostFrames;
use flamewalk_handler::memory::LiveStack;
use flamewalk_handler::record::Header;
use flamewalk_handler::recorder::Recorder;
use flamewalk_handler::registry::{Reader, Registry};
use flamewalk_handler::ring::{Full, Ring, Word};
use flamewalk_handler::stack;
use flamewalk_handler::statistics::{Counters, Fate, LossCause};
use flamewalk_handler::stores::Stores;

unsafe extern "C" {
    /// Defined nowhere: what can panic cannot be linked.
    fn this_can_panic() -> !;
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: never linked.
    unsafe { this_can_panic() }
}

/// What a thread's handler reaches.
pub struct Thread {
    registry: Registry,
    reader: Reader,
    list: ActivationLayout,
    stores: Stores,
    ring: Ring<&'static [Word]>,
    counters: Counters,
}

/// Takes one sample.
///
/// # Safety
///
/// None: it is never run.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn handler(thread: &Thread, registers: &Registers, bottom: usize, top: usize, youngest: usize, limit: usize) {
    let entered = cycles::now();
    let sample = |table: CodeTable<'_>| {
        let mut recorder = Recorder::begin(&thread.ring);
        // SAFETY: it is never run.
        let (memory, mut list) = unsafe { (LiveStack::new(), Activations::new(youngest, &thread.list)) };
        let mut activations = core::iter::from_fn(|| match list.next()? {
            Next::Activation(activation) => {
                // SAFETY: it is never run.
                let attached = unsafe { thread.stores.labels(activation.store) }.is_some();
                Some(Next::Activation(Activation { attached, ..activation }))
            }
            other => Some(other),
        });
        let walked = stack::Thread { memory: &memory, table, stack: bottom..top, activations: &mut activations };
        let end = stack::walk::<Native, _>(registers, walked, &mut NoHostFrames, limit, &mut recorder).end;
        if let Some(cause) = LossCause::of_walk(end) {
            return Fate::Lost(cause);
        }
        let generation = table.generation();
        let header =
            Header { ticks: 1, end, weight: 1, time: 0, generation, labels: 0, stack_used: 0, stack_left: 0 };
        if !recorder.has_guest() {
            return Fate::Outside;
        }
        match recorder.commit(&header) {
            Ok(()) => Fate::Delivered,
            Err(Full) => Fate::Lost(LossCause::RingFull),
        }
    };
    // SAFETY: it is never run.
    let fate = unsafe { thread.registry.read(&thread.reader, sample) };
    #[cfg(control)]
    assert!(limit < top);
    thread.counters.count(fate, 1, 1);
    thread.counters.took(cycles::now().saturating_sub(entered));
}
