//! The tables of one thread, as they are written.

use std::collections::HashMap;

use indexmap::{IndexMap, IndexSet};

use super::file::{FrameTable, FuncTable, NativeSymbols, ResourceTable, StackTable};
use crate::{Frame, FrameId, FrameKind, NameId, Names, Profile, StackId};

/// Kinds of frames by the category that shows them.
pub(super) const CATEGORIES: [(FrameKind, &str, &str); 5] = [
    // The profiler takes the grey one as the default.
    (FrameKind::Truncated, "Other", "grey"),
    (FrameKind::Guest, "Guest", "blue"),
    (FrameKind::HostCall, "Host call", "orange"),
    (FrameKind::Builtin, "Builtin", "purple"),
    (FrameKind::Host, "Host", "green"),
];

pub(super) fn category(kind: FrameKind) -> u64 {
    let position = CATEGORIES.iter().position(|(of, ..)| *of == kind);
    // Every kind is there.
    position.unwrap_or(0) as u64
}

/// Fills the tables as frames and stacks are asked for.
pub(super) struct Tables<'p> {
    profile: &'p Profile,
    names: &'p Names,
    /// Guest modules by their position in the file's list of libraries.
    modules: &'p IndexSet<&'p str>,
    strings: IndexSet<&'p str>,
    /// Libraries.
    resources: IndexSet<usize>,
    /// Functions by kind, name, library and file.
    functions: IndexSet<(FrameKind, NameId, Option<usize>, Option<&'p str>)>,
    /// Machine functions by name and library, with the first offset that is known of each.
    symbols: IndexMap<(NameId, usize), u32>,
    /// Frames with how deep they were inlined, and into which machine function.
    frames: IndexSet<(FrameId, u32, Option<usize>)>,
    stacks: IndexSet<(Option<u64>, u64)>,
    /// The last nodes of the stacks that were asked for.
    ends: HashMap<StackId, u64>,
}

impl<'p> Tables<'p> {
    pub(super) fn new(profile: &'p Profile, names: &'p Names, modules: &'p IndexSet<&'p str>) -> Self {
        Self {
            profile,
            names,
            modules,
            strings: IndexSet::new(),
            resources: IndexSet::new(),
            functions: IndexSet::new(),
            symbols: IndexMap::new(),
            frames: IndexSet::new(),
            stacks: IndexSet::new(),
            ends: HashMap::new(),
        }
    }

    pub(super) fn string(&mut self, text: &'p str) -> u64 {
        self.strings.insert_full(text).0 as u64
    }

    /// The last node of a stack.
    pub(super) fn stack(&mut self, id: StackId) -> Option<u64> {
        if let Some(&node) = self.ends.get(&id) {
            return Some(node);
        }
        let node = self.nodes(self.profile.stack(id).frames);
        self.ends.extend(node.map(|node| (id, node)));
        node
    }

    fn nodes(&mut self, frames: &[FrameId]) -> Option<u64> {
        let (mut node, mut depth, mut symbol) = (None, 0, None);
        for &id in frames {
            if self.profile.frame(id).inlined {
                depth += 1;
            } else {
                (depth, symbol) = (0, self.symbol(id));
            }
            let frame = self.frames.insert_full((id, depth, symbol)).0 as u64;
            node = Some(self.stacks.insert_full((node, frame)).0 as u64);
        }
        node
    }

    /// The machine function that a frame is in, if it is known where that is.
    fn symbol(&mut self, id: FrameId) -> Option<usize> {
        let frame = self.profile.frame(id);
        let (library, offset) = (self.binary_of(frame)?, frame.bytecode_offset?);
        let symbol = self.symbols.entry((self.names.id(id), library));
        let index = symbol.index();
        let first = symbol.or_insert(offset);
        *first = offset.min(*first);
        Some(index)
    }

    fn binary_of(&self, frame: &Frame) -> Option<usize> {
        let module = frame.module.as_deref().filter(|_| frame.kind == FrameKind::Guest);
        module.and_then(|module| self.modules.get_index_of(module))
    }

    pub(super) fn stack_table(&self) -> StackTable {
        StackTable {
            length: self.stacks.len(),
            prefix: self.stacks.iter().map(|&(caller, _)| caller).collect(),
            frame: self.stacks.iter().map(|&(_, frame)| frame).collect(),
        }
    }

    pub(super) fn frame_table(&mut self) -> FrameTable {
        let mut table = FrameTable { length: self.frames.len(), ..FrameTable::default() };
        for &(id, depth, symbol) in &self.frames {
            let frame = self.profile.frame(id);
            let location = frame.location.as_ref();
            let file = location.map(|location| &*location.file);
            let function = (frame.kind, self.names.id(id), self.binary_of(frame), file);
            let known = |number: u32| Some(number).filter(|&number| number > 0);
            table.address.push(frame.bytecode_offset.map_or(-1, i64::from));
            table.inline_depth.push(depth);
            table.category.push(Some(category(frame.kind)));
            table.subcategory.push(0);
            table.func.push(self.functions.insert_full(function).0 as u64);
            table.native_symbol.push(symbol);
            table.inner_window_id.push(0);
            table.line.push(location.and_then(|location| known(location.line)));
            table.column.push(location.and_then(|location| known(location.column)));
        }
        table
    }

    /// To be called when all frames are there.
    pub(super) fn func_table(&mut self) -> FuncTable {
        let mut table = FuncTable { length: self.functions.len(), ..FuncTable::default() };
        for &(_, name, library, file) in &self.functions {
            table.name.push(self.strings.insert_full(self.names.text(name)).0 as u64);
            table.is_js.push(false);
            table.relevant_for_js.push(false);
            let resource = library.map(|library| self.resources.insert_full(library).0 as i64);
            table.resource.push(resource.unwrap_or(-1));
            table.file_name.push(file.map(|file| self.strings.insert_full(file).0 as u64));
            table.line_number.push(None);
            table.column_number.push(None);
        }
        table
    }

    /// To be called when all functions are there.
    pub(super) fn resource_table(&mut self) -> ResourceTable {
        /// What the format calls a library.
        const LIBRARY: u32 = 1;
        let mut table = ResourceTable { length: self.resources.len(), ..ResourceTable::default() };
        for &library in &self.resources {
            table.lib.push(Some(library as i64));
            table.name.push(self.strings.insert_full(self.modules[library]).0 as u64);
            table.host.push(None);
            table.kind.push(LIBRARY);
        }
        table
    }

    /// To be called when all frames are there.
    pub(super) fn native_symbols(&mut self) -> NativeSymbols {
        let mut table = NativeSymbols { length: self.symbols.len(), ..NativeSymbols::default() };
        for (&(name, library), &first) in &self.symbols {
            table.address.push(first);
            table.function_size.push(None);
            table.lib_index.push(library);
            table.name.push(self.strings.insert_full(self.names.text(name)).0 as u64);
        }
        table
    }

    /// To be called when everything else is there.
    pub(super) fn string_array(&self) -> Vec<String> {
        self.strings.iter().map(|&text| text.to_owned()).collect()
    }
}
