//! The native frames of the host around and between guest segments, as far as they can be shown to belong there.

use super::StackWalk;
use crate::arch::{Architecture, CallerLocation, Registers};
use crate::code::{FoundFunction, UNKNOWN_FRAME_SIZE};
use crate::host::{HostCaller, HostFrame, HostUnwinder};
use crate::memory::Memory;
use crate::record::Frame;
use crate::recorder::Visit;
use crate::walk::WalkEnd;

impl<A: Architecture, M: Memory, H: HostUnwinder, V: Visit> StackWalk<'_, A, M, H, V> {
    /// The native frame that called an entry trampoline, which was left through `location` with the frame pointer
    /// register at `fp`.
    pub(super) fn host_caller(&self, location: CallerLocation, fp: usize) -> Option<HostFrame> {
        let word = |address: Option<usize>| self.memory.stack_word(address?);
        let (pc, sp, fp) = match location {
            CallerLocation::Frame { fp } => (
                word(fp.checked_add(A::RETURN_ADDRESS_OFFSET))?,
                fp.checked_add(A::CALLER_SP_OFFSET)?,
                word(fp.checked_add(A::SAVED_FP_OFFSET))?,
            ),
            CallerLocation::ReturnAddressAt { address } => {
                (word(Some(address))?, address.checked_add(size_of::<usize>())?, fp)
            }
            CallerLocation::ReturnAddress { address } => (address, self.floor, fp),
        };
        Some(HostFrame { registers: Registers { pc, sp, fp, lr: pc }, is_return_address: true })
    }

    /// Visits the native frames up to the exit trampoline whose frame is at `exit_fp`; without one, up to the end of
    /// the stack. What is missing in between shows as a gap.
    pub(super) fn host_frames(&mut self, exit_fp: Option<usize>) -> Result<(), WalkEnd> {
        if !H::WANTED {
            return Ok(());
        }
        let top = exit_fp.unwrap_or(self.memory.live_stack().end);
        let mut next = self.host_frame.take();
        while let Some(frame) = next {
            let Some(instruction) = frame.instruction() else { break };
            if self.table.image(instruction).is_some() {
                if exit_fp
                    .is_some_and(|exit_fp| self.is_left_through(instruction, frame.registers.sp, exit_fp))
                {
                    return Ok(());
                }
                break;
            }
            if !self.host.is_known(&frame) {
                break;
            }
            self.emit(frame.to_record())?;
            let sp = frame.registers.sp;
            next = match self.host.caller(&frame, &self.memory) {
                HostCaller::Frame(caller) => {
                    Some(caller).filter(|caller| (sp..=top).contains(&caller.registers.sp))
                }
                HostCaller::None if exit_fp.is_none() => return Ok(()),
                HostCaller::None | HostCaller::Unknown => None,
            };
        }
        self.emit(Frame::HostGap)
    }

    /// Whether the host was called by `call`, with the stack pointer at `sp`, in the trampoline whose frame is at
    /// `exit_fp`.
    fn is_left_through(&self, call: usize, sp: usize, exit_fp: usize) -> bool {
        let Some((_, FoundFunction { function, .. })) = self.table.find(call) else { return false };
        let size = function.frame_size;
        let fits = size == UNKNOWN_FRAME_SIZE || sp.checked_add(size as usize) == Some(exit_fp);
        function.kind.leaves_guest() && fits && sp <= exit_fp
    }
}
