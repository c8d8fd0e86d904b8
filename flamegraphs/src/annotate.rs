//! What one function costs by source line, by instruction of its bytecode and by machine instruction.
//!
//! The cost of a line is *self* where the function was the youngest frame; *total* is that of all samples that have
//! the line on the stack, each counted once however often the function recurses.
//!
//! For instructions, *self* includes the functions that the guest's compiler inlined: they have no instructions of
//! their own. With that, a function's bytecode and machine code count what runs in them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use flamewalk_profile::{Frame, FrameKind, NameId, Names, Profile, printable};

/// What fell on a line or an instruction.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Cost {
    /// Weight of the samples that were taken there.
    pub self_weight: u64,
    /// Weight of the samples that have it on the stack.
    pub total_weight: u64,
}

/// What fell on a function, in the unit of the profile's event.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Annotation {
    /// The name it is shown by.
    pub name: String,
    /// All of it.
    pub cost: Cost,
    /// By path of the source file, as the debug information states it, and line.
    pub files: BTreeMap<Arc<str>, BTreeMap<u32, Cost>>,
    /// What fell on no known line.
    pub no_line: Cost,
    /// The functions of this name that have code of their own. Several if a name is used twice, none if the function
    /// was inlined wherever it was sampled.
    pub bodies: BTreeMap<BodyId, Body>,
}

/// A function of the guest's binary.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct BodyId {
    /// The core module that it is in, as shown to a user.
    pub module: Option<Arc<str>>,
    /// Its index in the module's function index space.
    pub function_index: u32,
}

impl fmt::Display for BodyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(module) = &self.module {
            write!(f, "{} ", printable(module))?;
        }
        write!(f, "function {}", self.function_index)
    }
}

/// What fell on a function's instructions.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Body {
    /// [`Frame::body_hash`].
    pub hash: Option<u64>,
    /// By offset in the guest's binary.
    pub bytecode: BTreeMap<u32, Cost>,
    /// By offset in the text of the guest's code image, with the bytecode that each comes from.
    pub machine: BTreeMap<u32, (Option<u32>, Cost)>,
}

/// Why a function cannot be annotated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnnotateError {
    /// The profile has no function of the name.
    #[error("the profile has no function `{name}`")]
    Unknown {
        /// The name, as given.
        name: String,
    },
    /// Several functions contain the name, and none is it.
    #[error("several functions contain `{name}`: {}", list(candidates))]
    Ambiguous {
        /// The name, as given.
        name: String,
        /// The functions' names, those with the largest total first.
        candidates: Vec<String>,
    },
    /// What the name stands for is outside the guest.
    #[error("`{name}` is not a function of the guest, and has no code to show")]
    NoCode {
        /// The shown name.
        name: String,
    },
}

fn list(candidates: &[String]) -> String {
    const MOST: usize = 10;
    let more = if candidates.len() > MOST { ", …" } else { "" };
    candidates.iter().take(MOST).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ") + more
}

/// Annotates the function that is shown by `name`, or the only one whose shown name contains it.
///
/// # Errors
/// [`AnnotateError`] if there is no such function, or no single one.
pub fn annotate(profile: &Profile, name: &str) -> Result<Annotation, AnnotateError> {
    let names = Names::new(profile);
    let wanted = find(profile, &names, name)?;
    let is_wanted = |frame: &Frame, id| has_code(frame.kind) && id == wanted;
    let mut annotation = Annotation {
        name: names.text(wanted).to_owned(),
        cost: Cost::default(),
        files: BTreeMap::new(),
        no_line: Cost::default(),
        bodies: BTreeMap::new(),
    };
    let mut counted = BTreeSet::new();
    for stack in profile.stacks() {
        counted.clear();
        let weight = stack.tally.weight;
        let frames = || stack.frames.iter().map(|&id| (profile.frame(id), names.id(id)));
        // From the youngest on: what is there counts as self, even if an older frame is at the same place.
        let (mut is_youngest, mut is_in_body) = (true, true);
        for (frame, id) in frames().rev() {
            if is_wanted(frame, id) {
                annotation.add(frame, weight, (is_youngest, is_in_body), &mut counted);
            }
            is_youngest = false;
            // A frame that the guest's compiler inlined has no index, and lies in the next older one's body.
            is_in_body &= frame.inlined && frame.function_index.is_none();
        }
    }
    Ok(annotation)
}

fn has_code(kind: FrameKind) -> bool {
    matches!(kind, FrameKind::Guest | FrameKind::Host)
}

fn find(profile: &Profile, names: &Names, name: &str) -> Result<NameId, AnnotateError> {
    let mut functions = profile.functions(names);
    let (with_code, without): (Vec<_>, Vec<_>) = {
        functions.sort_by_key(|function| {
            (std::cmp::Reverse(function.total_tally.weight), names.text(function.name))
        });
        functions.iter().map(|function| (function.kind, function.name)).partition(|(kind, _)| has_code(*kind))
    };
    let exact = |functions: &[(FrameKind, NameId)]| {
        functions.iter().map(|(_, id)| *id).find(|id| names.text(*id) == name)
    };
    if let Some(id) = exact(&with_code) {
        return Ok(id);
    }
    if exact(&without).is_some() {
        return Err(AnnotateError::NoCode { name: name.into() });
    }
    let mut similar: Vec<NameId> =
        with_code.iter().map(|(_, id)| *id).filter(|id| names.text(*id).contains(name)).collect();
    similar.dedup();
    match *similar {
        [] => Err(AnnotateError::Unknown { name: name.into() }),
        [id] => Ok(id),
        _ => {
            let candidates = similar.iter().map(|id| names.text(*id).to_owned()).collect();
            Err(AnnotateError::Ambiguous { name: name.into(), candidates })
        }
    }
}

/// What has been counted for a stack already.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Place {
    Function,
    Line(Option<(Arc<str>, u32)>),
    Bytecode(BodyId, u32),
    Machine(BodyId, u32),
}

impl Annotation {
    /// Adds a frame of the function, in a stack of this weight; whether it is the youngest frame, and whether all
    /// younger ones were inlined into it.
    fn add(
        &mut self,
        frame: &Frame,
        weight: u64,
        (is_youngest, is_in_body): (bool, bool),
        counted: &mut BTreeSet<Place>,
    ) {
        let mut add = |cost: &mut Cost, place: Place, is_self: bool| {
            if is_self {
                cost.self_weight += weight;
            }
            if counted.insert(place) {
                cost.total_weight += weight;
            }
        };
        add(&mut self.cost, Place::Function, is_youngest);
        match frame.location.as_ref().filter(|location| location.line > 0) {
            Some(location) => {
                let line =
                    self.files.entry(location.file.clone()).or_default().entry(location.line).or_default();
                add(line, Place::Line(Some((location.file.clone(), location.line))), is_youngest);
            }
            None => add(&mut self.no_line, Place::Line(None), is_youngest),
        }
        let Some(function_index) = frame.function_index else { return };
        let id = BodyId { module: frame.module.clone(), function_index };
        let body = self.bodies.entry(id.clone()).or_default();
        body.hash = body.hash.or(frame.body_hash);
        if let Some(offset) = frame.bytecode_offset {
            let cost = body.bytecode.entry(offset).or_default();
            add(cost, Place::Bytecode(id.clone(), offset), is_in_body);
        }
        // What the runtime's compiler inlined runs in the code of another function.
        if let Some(offset) = frame.text_offset.filter(|_| !frame.inlined) {
            let (_, cost) = body.machine.entry(offset).or_insert((frame.bytecode_offset, Cost::default()));
            add(cost, Place::Machine(id, offset), is_in_body);
        }
    }
}
