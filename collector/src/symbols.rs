//! From located frames to the frames of a profile: names, inlined functions, lines, host calls.

use std::collections::HashMap;

use flamewalk_handler::record::MIXED_LABELS;
use flamewalk_profile::{
    Frame, FrameId, FrameKind, Labels, LabelsId, Origin as SampleOrigin, Profile, ProfileError,
    SourceLocation, StackId, Tally,
};
use flamewalk_symbolizer::registry::{CodeRegistry, ImageId};
use flamewalk_symbolizer::{CodeAddress, HostAddress, HostCall, HostSymbolizer, SymbolFrame};

use crate::aggregator::Aggregator;
use crate::frame_table::{FrameIndex, FrameTable, LocatedFrame};
use crate::labels::LabelTable;
use crate::stack_tree::StackIndex;
use crate::sums::Origin;
use crate::totals;

/// Stands for native frames of the host that could not be found.
const HOST_GAP: &str = "(missing host frames)";

/// What a profile takes out of an aggregate.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    /// Samples on stacks that were cut to save memory.
    pub(crate) merged: Tally,
    /// Samples whose thread and time were let go of to save memory, on stacks as they were.
    pub(crate) without_origin: Tally,
    /// What symbolizers have to tell about the code of the stacks.
    pub(crate) notices: Vec<String>,
}

/// Adds the stacks of an aggregate to `profile`: all, or what fell on them with all of the labels in `only`.
pub(crate) fn add_stacks(
    aggregator: &Aggregator,
    registry: &CodeRegistry,
    labels: &LabelTable,
    host: &mut HostSymbolizer,
    only: Option<&Labels>,
    profile: &mut Profile,
) -> Result<Taken, ProfileError> {
    let mut label_ids: HashMap<u64, Option<LabelsId>> = HashMap::new();
    let mut label_id = |number, profile: &mut Profile| {
        *label_ids.entry(number).or_insert_with(|| {
            let set = labels.get(number);
            let is_wanted =
                only.is_none_or(|only| only.iter().all(|(key, value)| set.get(key) == Some(value)));
            is_wanted.then(|| profile.intern_labels(set))
        })
    };
    let mut is_wanted = vec![false; aggregator.stacks.len()];
    for (key, _) in aggregator.sums.iter() {
        is_wanted[key.stack.index()] |= label_id(key.origin.labels & !MIXED_LABELS, profile).is_some();
    }
    host.look_up(host_addresses(aggregator, is_wanted));

    let mut symbols = Symbols { frames: &aggregator.frames, registry, host, known: HashMap::new() };
    let mut taken = Taken::default();
    let mut known: HashMap<(StackIndex, bool), (StackId, bool)> = HashMap::new();
    let mut stack = Vec::new();
    for (key, sum) in aggregator.sums.iter() {
        let Origin { thread, labels } = key.origin;
        let Some(labels_id) = label_id(labels & !MIXED_LABELS, profile) else { continue };
        // Below the guest that has the labels there are others', which are nobody else's business.
        let is_cut = only.is_some() && labels & MIXED_LABELS != 0;
        let thread_id = thread.and_then(|number| aggregator.threads.get(&number));
        let thread_id = thread_id.map(|thread| profile.intern_thread(thread.clone()));
        let origin = SampleOrigin { thread: thread_id, labels: labels_id, slice: key.slice };
        let (id, is_merged) = match known.get(&(key.stack, is_cut)) {
            Some(&(id, is_merged)) => (profile.add_to(id, origin, sum.tally)?, is_merged),
            None => {
                stack.clear();
                stack.extend(aggregator.stacks.frames(key.stack));
                let shown = if is_cut { symbols.youngest_guest(&stack) } else { &stack };
                let ids = symbols.stack(profile, shown, is_cut);
                let id = profile.add_from(&ids, origin, sum.tally)?;
                let oldest = stack.last().map(|frame| aggregator.frames.get(*frame).0);
                let is_merged = oldest == Some(LocatedFrame::Merged);
                known.insert((key.stack, is_cut), (id, is_merged));
                (id, is_merged)
            }
        };
        // How deep the stack is tells of those below.
        if let Some(headroom) = sum.headroom().filter(|_| !is_cut) {
            profile.note_headroom(id, headroom);
        }
        if is_merged {
            taken.merged = totals::sum(taken.merged, sum.tally);
        } else if thread.is_none() {
            taken.without_origin = totals::sum(taken.without_origin, sum.tally);
        }
    }
    taken.notices = aggregator.frames.notices(symbols.known.keys().copied(), registry);
    Ok(taken)
}

/// The addresses of the host's code on the stacks that are wanted.
fn host_addresses(aggregator: &Aggregator, mut is_wanted: Vec<bool>) -> impl Iterator<Item = HostAddress> {
    aggregator.stacks.mark_callers(&mut is_wanted);
    let wanted = aggregator.stacks.iter().filter(move |(stack, _)| is_wanted[stack.index()]);
    wanted.filter_map(|(_, (frame, _))| match aggregator.frames.get(frame).0 {
        LocatedFrame::Host(address) => Some(address),
        _ => None,
    })
}

impl Taken {
    /// What the bound on memory has cost, one sentence each.
    pub(crate) fn about_memory(&self, total: Tally, bound: usize) -> impl Iterator<Item = String> {
        let share = |part: Tally| part.samples as f64 * 100.0 / total.samples.max(1) as f64;
        let bound = bound as f64 / f64::from(1 << 20);
        let (merged, without_origin) = (self.merged, self.without_origin);
        let about_stacks = (merged != Tally::default()).then(|| {
            format!(
                "the memory for stacks ({bound:.1} MiB) was used up: the rarest were cut to their youngest frames, with \
                 {merged} of the samples ({:.1} %)",
                share(merged)
            )
        });
        let about_origins = (without_origin != Tally::default()).then(|| {
            format!(
                "the memory for stacks ({bound:.1} MiB) was used up: thread and time of {without_origin} of the samples \
                 ({:.1} %) were let go of",
                share(without_origin)
            )
        });
        about_stacks.into_iter().chain(about_origins)
    }
}

struct Symbols<'a> {
    frames: &'a FrameTable,
    registry: &'a CodeRegistry,
    host: &'a mut HostSymbolizer,
    /// The profile's frames for a located one, youngest first.
    known: HashMap<FrameIndex, Box<[FrameId]>>,
}

impl Symbols<'_> {
    /// The part of a stack from its youngest frame to where the host has entered the youngest guest.
    fn youngest_guest<'s>(&self, stack: &'s [FrameIndex]) -> &'s [FrameIndex] {
        let is_guest = |index: &FrameIndex| {
            let frame = self.frames.get(*index).0;
            matches!(frame, LocatedFrame::Instruction(..) | LocatedFrame::ReturnAddress(..))
        };
        let first = stack.iter().position(is_guest).unwrap_or(0);
        let length = stack[first..].iter().take_while(|index| is_guest(index)).count();
        &stack[..first + length]
    }

    /// The profile's frames of a stack, oldest first, with a root that says so if it is cut.
    fn stack(&mut self, profile: &mut Profile, stack: &[FrameIndex], is_cut: bool) -> Box<[FrameId]> {
        let mut ids = Vec::new();
        for index in stack {
            let frames = self.known.entry(*index).or_insert_with(|| {
                let intern = |frame| profile.intern(frame);
                match self.frames.get(*index) {
                    (_, Some(named)) => named.iter().cloned().map(intern).collect(),
                    (LocatedFrame::Host(address), _) => {
                        self.host.frames(address).iter().cloned().map(host_frame).map(intern).collect()
                    }
                    (located, None) => image_frames(self.registry, located).into_iter().map(intern).collect(),
                }
            });
            ids.extend_from_slice(frames);
        }
        // If nobody knows the code of any frame, what fell on it counts all the same.
        if is_cut || ids.is_empty() {
            ids.push(profile.intern(Frame::truncated()));
        }
        ids.reverse();
        ids.into()
    }
}

/// The frames that a located one stands for, youngest first, by the image that it lies in; of the host's own, which
/// lie in none, there are none.
pub(crate) fn image_frames(registry: &CodeRegistry, located: LocatedFrame) -> Vec<Frame> {
    match located {
        LocatedFrame::Instruction(image, offset) => {
            guest_frames(registry, image, CodeAddress::Instruction(offset))
        }
        LocatedFrame::ReturnAddress(image, offset) => {
            guest_frames(registry, image, CodeAddress::ReturnAddress(offset))
        }
        LocatedFrame::HostCall { returns_to, trampoline } => {
            vec![host_call(registry, returns_to, trampoline)]
        }
        LocatedFrame::Host(_) => Vec::new(),
        LocatedFrame::HostGap => vec![Frame::new(FrameKind::Host, HOST_GAP)],
        LocatedFrame::Truncated | LocatedFrame::Merged => vec![Frame::truncated()],
    }
}

/// What an image's symbolizer has to tell the user, complete for the frames that were looked up.
pub(crate) fn image_notices(registry: &CodeRegistry, image: ImageId) -> Vec<String> {
    let notices = registry
        .with_symbolizer(image, |symbolizer| symbolizer.notices().iter().map(ToString::to_string).collect());
    notices.unwrap_or_default()
}

fn guest_frames(registry: &CodeRegistry, image: ImageId, address: CodeAddress) -> Vec<Frame> {
    let frames = registry.with_symbolizer(image, |symbolizer| {
        let symbols = symbolizer.frames(address).to_vec().into_iter();
        let frame = |symbol| Frame {
            body_hash: symbolizer.body_hash(&symbol),
            ..guest_frame(symbol, Some(address.offset_for_lookup()))
        };
        symbols.map(frame).collect()
    });
    frames.unwrap_or_default()
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
        inlined: symbol.inlined,
        ..Frame::guest(symbol.name)
    }
}

fn host_frame(symbol: SymbolFrame) -> Frame {
    Frame { kind: FrameKind::Host, ..guest_frame(symbol, None) }
}

/// Names a host call by the trampoline that was taken and the call in the guest.
fn host_call(registry: &CodeRegistry, returns_to: Option<(ImageId, u32)>, trampoline: Option<u32>) -> Frame {
    let called = returns_to.and_then(|(image, address)| {
        registry.with_symbolizer(image, |symbolizer| symbolizer.host_call(address, trampoline))
    });
    match called {
        Some(HostCall::Import { module, name }) => Frame::host_call(module, name),
        Some(HostCall::Builtin { name }) => Frame::builtin(name),
        _ => Frame::new(FrameKind::HostCall, "unknown import"),
    }
}
