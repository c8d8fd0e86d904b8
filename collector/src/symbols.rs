//! From located frames to the frames of a profile: names, inlined functions, lines, host calls.

use std::collections::HashMap;

use flamewalk_profile::{Frame, FrameId, FrameKind, Profile, ProfileError, SourceLocation};
use flamewalk_symbolizer::registry::{CodeRegistry, ImageId};
use flamewalk_symbolizer::{CodeAddress, HostCall, HostSymbolizer, SymbolFrame};

use crate::aggregator::{Aggregator, LocatedFrame};

/// Stands for native frames of the host that could not be found.
const HOST_GAP: &str = "(missing host frames)";

/// Adds all of `aggregator`'s stacks to `profile`.
pub(crate) fn add_stacks(
    aggregator: &Aggregator,
    registry: &CodeRegistry,
    host: &mut HostSymbolizer,
    profile: &mut Profile,
) -> Result<(), ProfileError> {
    host.look_up(aggregator.stacks().flat_map(|(frames, _)| frames).filter_map(|frame| match frame {
        LocatedFrame::Host(address) => Some(*address),
        _ => None,
    }));
    let mut symbols = Symbols { registry, host, known: HashMap::new() };
    let mut frames = Vec::new();
    for (located, tally) in aggregator.stacks() {
        frames.clear();
        for (index, frame) in located.iter().enumerate() {
            symbols.push(profile, *frame, located.get(index + 1).copied(), &mut frames);
        }
        frames.reverse();
        profile.add(&frames, tally)?;
    }
    Ok(())
}

struct Symbols<'a> {
    registry: &'a CodeRegistry,
    host: &'a mut HostSymbolizer,
    /// The profile's frames for a located frame and, for a host call, its caller; youngest first.
    known: HashMap<(LocatedFrame, Option<LocatedFrame>), Vec<FrameId>>,
}

impl Symbols<'_> {
    fn push(
        &mut self,
        profile: &mut Profile,
        frame: LocatedFrame,
        older: Option<LocatedFrame>,
        frames: &mut Vec<FrameId>,
    ) {
        let caller = older.filter(|_| matches!(frame, LocatedFrame::HostCall(_)));
        let ids = self.known.entry((frame, caller)).or_insert_with(|| {
            let symbols = match frame {
                LocatedFrame::Instruction(image, offset) => {
                    guest_frames(self.registry, image, CodeAddress::Instruction(offset))
                }
                LocatedFrame::ReturnAddress(image, offset) => {
                    guest_frames(self.registry, image, CodeAddress::ReturnAddress(offset))
                }
                LocatedFrame::HostCall(trampoline) => vec![host_call(self.registry, trampoline, caller)],
                LocatedFrame::Host(address) => {
                    self.host.frames(address).iter().cloned().map(host_frame).collect()
                }
                LocatedFrame::HostGap => vec![Frame::new(FrameKind::Host, HOST_GAP)],
                LocatedFrame::Truncated => vec![Frame::truncated()],
            };
            symbols.into_iter().map(|symbol| profile.intern(symbol)).collect()
        });
        frames.extend_from_slice(ids);
    }
}

fn guest_frames(registry: &CodeRegistry, image: ImageId, address: CodeAddress) -> Vec<Frame> {
    registry
        .with_symbolizer(image, |symbolizer| symbolizer.frames(address))
        .map(|symbols| {
            symbols.into_iter().map(|symbol| guest_frame(symbol, Some(address.offset_for_lookup()))).collect()
        })
        .unwrap_or_default()
}

/// `text_offset` is that of the instruction that was sampled, or lies in the call that it waits for.
fn guest_frame(symbol: SymbolFrame, text_offset: Option<u32>) -> Frame {
    Frame {
        module: Some(symbol.module).filter(|module| !module.is_empty()),
        location: symbol.location.map(|location| SourceLocation {
            file: location.file,
            line: location.line,
            column: location.column,
        }),
        function_index: symbol.function_index,
        bytecode_offset: symbol.bytecode_offset,
        text_offset,
        body_hash: symbol.body_hash,
        inlined: symbol.inlined,
        ..Frame::guest(symbol.name)
    }
}

fn host_frame(symbol: SymbolFrame) -> Frame {
    Frame { kind: FrameKind::Host, ..guest_frame(symbol, None) }
}

/// Names a host call by the trampoline that was taken and the call in the guest.
fn host_call(
    registry: &CodeRegistry,
    trampoline: Option<(ImageId, u32)>,
    caller: Option<LocatedFrame>,
) -> Frame {
    let called = match caller {
        Some(LocatedFrame::ReturnAddress(image, return_address)) => {
            let trampoline = trampoline.and_then(|(of, offset)| (of == image).then_some(offset));
            registry.with_symbolizer(image, |symbolizer| symbolizer.host_call(return_address, trampoline))
        }
        _ => None,
    };
    match called {
        Some(HostCall::Import { module, name }) => Frame::host_call(module, name),
        Some(HostCall::Builtin { name }) => Frame::builtin(name),
        _ => Frame::new(FrameKind::HostCall, "unknown import"),
    }
}
