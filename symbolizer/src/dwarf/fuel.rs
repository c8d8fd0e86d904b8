//! A bound on all the work that one file's DWARF can cause.

use super::OutOfFuel;

/// Steps that may still be taken. A step reads an attribute, a range, a row of a line program or an entry of a
/// file table: tens of nanoseconds at most.
#[derive(Debug)]
pub(crate) struct Fuel(u64);

impl Fuel {
    /// Reading all of a large C++ or Rust program's DWARF takes about one step per byte, most of them for
    /// attributes. The factor leaves room for tables that are read more than once.
    const STEPS_PER_BYTE: u64 = 16;
    const MINIMUM: u64 = 1 << 20;

    pub(crate) fn for_size(bytes: usize) -> Fuel {
        Fuel((bytes as u64).saturating_mul(Self::STEPS_PER_BYTE).saturating_add(Self::MINIMUM))
    }

    pub(crate) fn burn(&mut self, steps: usize) -> Result<(), OutOfFuel> {
        self.0 = self.0.checked_sub(steps as u64).ok_or(OutOfFuel)?;
        Ok(())
    }
}
