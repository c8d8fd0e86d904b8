//! A synthetic thread that runs guests and keeps a shadow stack: the truth that walks are compared with.
//!
//! It does what Wasmtime does, one visible step at a time: host functions with any words in their frames, entry
//! trampolines, guest functions, exit trampolines that note in the store where the guest was left, entries of
//! the same or another store, the list of activations, returns, and unwinding that skips all epilogues and goes on for a
//! while before the store forgets where its guest was left.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use flamewalk_handler::activation::{ActivationLayout, Activations, ExitStateLayout};
use flamewalk_handler::arch::Registers;
use flamewalk_handler::code::{CodeImage, CodeKind, CodeTable, Function};
use flamewalk_handler::record::Frame;

use crate::shape::{Boundaries, Shape};

/// Code of two modules in one buffer.
pub(crate) struct Program {
    pub(crate) bytes: Vec<u8>,
    texts: Vec<std::ops::Range<usize>>,
    tables: Vec<Vec<Function>>,
    pub(crate) functions: Vec<Placed>,
}

/// A function at its place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed {
    pub(crate) image: usize,
    pub(crate) kind: CodeKind,
    pub(crate) frame: u32,
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) at: Boundaries,
}

impl Program {
    /// Two images of guest functions and trampolines, with padding, executed where their bytes are in memory.
    pub(crate) fn new<A: Shape>() -> Self {
        use CodeKind::{BuiltinTrampoline, EntryTrampoline, ExitTrampoline, Guest};
        let kinds = [
            (Guest, 0),
            (Guest, 16),
            (Guest, 64),
            (Guest, 16),
            (EntryTrampoline, 64),
            (ExitTrampoline, 16),
            (Guest, 32),
            (ExitTrampoline, 32),
            (ExitTrampoline, 48),
            (BuiltinTrampoline, 32),
            (BuiltinTrampoline, 80),
            (BuiltinTrampoline, 0),
        ];
        let mut bytes = vec![0; 64];
        let (mut texts, mut tables, mut functions) = (vec![], vec![], vec![]);
        for image in 0..2 {
            let text_start = bytes.len();
            let mut table = vec![];
            for (kind, frame) in kinds {
                let start = bytes.len();
                let (code, at) = A::code(frame);
                bytes.extend(&code);
                let end = bytes.len();
                let trampoline = matches!(kind, ExitTrampoline | BuiltinTrampoline);
                let frame_size = if A::CALL_PUSHES_RETURN_ADDRESS && trampoline { frame } else { 0 };
                if A::CALL_PUSHES_RETURN_ADDRESS {
                    assert_eq!(A::frame_size(&code), Some(frame));
                }
                let length = (end - start) as u32;
                table.push(Function { start: (start - text_start) as u32, length, kind, frame_size });
                functions.push(Placed { image, kind, frame, start, end, at });
                bytes.resize(bytes.len().next_multiple_of(16), 0xcc);
            }
            texts.push(text_start..bytes.len());
            tables.push(table);
            bytes.resize(bytes.len() + 48, 0xcc);
        }
        let base = bytes.as_ptr().expose_provenance();
        for text in &mut texts {
            *text = text.start + base..text.end + base;
        }
        for function in &mut functions {
            function.start += base;
            function.end += base;
        }
        Self { bytes, texts, tables, functions }
    }

    pub(crate) fn images(&self) -> Vec<CodeImage<'_>> {
        self.texts.iter().zip(&self.tables).map(|(text, table)| CodeImage::new(text.clone(), table)).collect()
    }

    fn of_kind(&self, image: usize, kinds: &[CodeKind], choice: usize) -> usize {
        let fitting: Vec<usize> = (0..self.functions.len())
            .filter(|index| {
                self.functions[*index].image == image && kinds.contains(&self.functions[*index].kind)
            })
            .collect();
        fitting[choice % fitting.len()]
    }
}

/// A shadow frame.
#[derive(Clone, Debug)]
enum Shadow {
    Host {
        sp: usize,
    },
    /// An entry trampoline, with what is needed to leave it.
    Entry {
        function: usize,
        store: usize,
        /// The address of its activation.
        activation: usize,
        resume: usize,
    },
    Guest {
        function: usize,
        resume: usize,
    },
    /// An exit or builtin trampoline. `frame` is its frame pointer once it is set.
    Exit {
        function: usize,
        resume: usize,
        frame: usize,
    },
}

/// What the machine does next, chosen by random numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Action {
    pub(crate) what: u8,
    pub(crate) choice: usize,
}

/// How the machine lays out activations (store, older, before, a spare word) and what they were before (likewise), which
/// come in this order, and contexts of stores.
pub(crate) const LAYOUT: ActivationLayout = ActivationLayout {
    store: 0,
    older: 8,
    before: 16,
    saved: ExitStateLayout { exit_fp: 0, exit_pc: 8, entry_fp: 16 },
    current: ExitStateLayout { exit_fp: 0, exit_pc: 8, entry_fp: 16 },
    guard: 24,
    stack_limit: 40,
    entering_frame: 48,
};
const ACTIVATION_BYTES: usize = 64;

/// One thread.
pub(crate) struct Machine<'a, A> {
    pub(crate) program: &'a Program,
    pub(crate) registers: Registers,
    pub(crate) words: Vec<AtomicUsize>,
    pub(crate) base: usize,
    /// Where the list of activations begins.
    youngest: usize,
    stores: Vec<[AtomicUsize; 7]>,
    shadow: Vec<Shadow>,
    seed: usize,
    architecture: std::marker::PhantomData<A>,
}

/// Called at every boundary.
pub(crate) type Observe<'o, A> = &'o mut dyn FnMut(&Machine<'_, A>);

impl<'a, A: Shape> Machine<'a, A> {
    pub(crate) fn new(program: &'a Program, words: usize, seed: usize) -> Self {
        let words: Vec<AtomicUsize> = (0..words).map(|_| AtomicUsize::new(0)).collect();
        let base = words.as_ptr().expose_provenance();
        let sp = (base + 8 * (words.len() - 8)) & !15;
        let stores = (0..3).map(|_| Default::default()).collect::<Vec<[AtomicUsize; 7]>>();
        for store in &stores {
            store.as_ptr().expose_provenance();
            // The guard below the stack, if the stack is taken for a fiber's.
            store[3].store(base - 4096, Relaxed);
            store[4].store(base, Relaxed);
        }
        let registers = Registers { pc: 0x10, sp, fp: 0x1234, lr: 0 };
        let shadow = vec![Shadow::Host { sp }];
        let architecture = std::marker::PhantomData;
        Self { program, registers, words, base, youngest: 0, stores, shadow, seed, architecture }
    }

    /// The list of activations as it is now.
    pub(crate) fn activations(&self) -> Activations<'static> {
        // SAFETY: the machine's own list, which lies in its words and stores; used before the machine goes on.
        unsafe { Activations::new(self.youngest, &LAYOUT) }
    }

    fn random(&mut self) -> usize {
        // A linear congruential generator is random enough for words that must not matter.
        self.seed = self.seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        self.seed >> 24
    }

    pub(crate) fn read(&self, address: usize) -> usize {
        self.words[(address - self.base) / 8].load(Relaxed)
    }

    fn write(&self, address: usize, value: usize) {
        self.words[(address - self.base) / 8].store(value, Relaxed);
    }

    /// A word such as a host's frame may hold: anything, and above all what looks like a frame.
    fn any_word(&mut self) -> usize {
        let choice = self.random();
        let pick = self.program.functions[choice % self.program.functions.len()];
        match self.random() % 6 {
            0 => pick.start + self.random() % (pick.end - pick.start),
            1 => self.base + 8 * (self.random() % self.words.len()),
            2 => self.base + 16 * (self.random() % (self.words.len() / 2)),
            3 => self.random() % 64,
            _ => self.random(),
        }
    }

    /// The host's frame: `count` pairs of words, some of which keep what was there.
    fn host_frame(&mut self, count: usize) {
        for _ in 0..count {
            self.registers.sp -= 16;
            for word in 0..2 {
                if !self.random().is_multiple_of(3) {
                    let value = self.any_word();
                    self.write(self.registers.sp + 8 * word, value);
                }
            }
        }
        self.registers.fp = self.any_word();
        self.registers.lr = self.any_word();
        self.registers.pc = 0x10 + self.random() % 64;
        self.shadow.push(Shadow::Host { sp: self.registers.sp });
    }

    fn resume_address(&mut self, function: usize) -> usize {
        let placed = self.program.functions[function];
        // Sometimes the call is the function's last instruction, and the return address lies behind it.
        if self.random().is_multiple_of(8) {
            return placed.end;
        }
        placed.start + placed.at.body + ((self.random() % (placed.at.restore - placed.at.body)) & !3) + 4
    }

    /// Calls `function` from what runs now and goes to its body.
    fn call(&mut self, function: usize, return_address: usize, shadow: Shadow, observe: Observe<'_, A>) {
        let placed = self.program.functions[function];
        self.registers.sp &= !15;
        let mut registers = self.registers;
        A::call(&mut registers, return_address, &mut |address, value| self.write(address, value));
        registers.pc = placed.start;
        self.registers = registers;
        self.shadow.push(shadow);
        observe(self);
        A::save(&mut registers, &mut |address, value| self.write(address, value));
        registers.pc = placed.start + placed.at.saved;
        self.registers = registers;
        observe(self);
        self.registers.fp = registers.sp;
        self.registers.pc = placed.start + placed.at.framed;
        observe(self);
        self.registers.sp -= placed.frame as usize;
        self.registers.pc = placed.start + placed.at.body;
        self.registers.lr = self.any_word();
        for word in 0..placed.frame as usize / 8 {
            if !self.random().is_multiple_of(3) {
                let value = self.any_word();
                self.write(self.registers.sp + 8 * word, value);
            }
        }
        observe(self);
    }

    /// Returns from the function that runs now.
    fn leave(&mut self, observe: Observe<'_, A>) {
        let placed = self.program.functions[self.function().expect("a function to leave")];
        let mut registers = self.registers;
        registers.sp = registers.fp;
        registers.pc = placed.start + placed.at.restore;
        self.registers = registers;
        observe(self);
        A::restore(&mut registers, &|address| self.read(address));
        registers.pc = placed.start + placed.at.leave;
        self.registers = registers;
        observe(self);
        A::leave(&mut self.registers);
        self.shadow.pop();
        // The caller's stack pointer may have been aligned for the call.
        if let Some(Shadow::Host { sp }) = self.shadow.last() {
            self.registers.sp = *sp;
        }
        if let Some(function) = self.function() {
            let placed = self.program.functions[function];
            self.registers.pc = placed.start + placed.at.body;
            self.registers.sp = self.registers.fp - placed.frame as usize;
        } else {
            self.registers.pc = 0x20;
        }
    }

    fn function(&self) -> Option<usize> {
        match self.shadow.last()? {
            Shadow::Host { .. } => None,
            Shadow::Entry { function, .. }
            | Shadow::Guest { function, .. }
            | Shadow::Exit { function, .. } => Some(*function),
        }
    }

    fn exit_state(&self, store: usize) -> [usize; 3] {
        [0, 1, 2].map(|word| self.stores[store][word].load(Relaxed))
    }

    fn set_exit_state(&self, store: usize, state: [usize; 3]) {
        for (word, value) in state.into_iter().enumerate() {
            self.stores[store][word].store(value, Relaxed);
        }
    }

    fn store(&self) -> Option<usize> {
        self.shadow.iter().rev().find_map(|shadow| match shadow {
            Shadow::Entry { store, .. } => Some(*store),
            _ => None,
        })
    }

    /// The host enters a guest of `store`.
    fn enter(&mut self, store: usize, choice: usize, observe: Observe<'_, A>) {
        self.registers.sp = (self.registers.sp & !15) - ACTIVATION_BYTES;
        let activation = self.registers.sp;
        let before = activation + ACTIVATION_BYTES / 2;
        for (word, value) in self.exit_state(store).into_iter().enumerate() {
            self.write(before + 8 * word, value);
        }
        for (word, value) in
            [self.stores[store].as_ptr().addr(), self.youngest, before].into_iter().enumerate()
        {
            self.write(activation + 8 * word, value);
        }
        // Of the spare words one holds what the frame is known by before.
        self.write(activation + 24, self.stores[store][6].swap(before, Relaxed));
        observe(self);
        self.youngest = activation;
        observe(self);
        let entry = self.program.of_kind(choice % 2, &[CodeKind::EntryTrampoline], 0);
        self.call(entry, 0x30, Shadow::Entry { function: entry, store, activation, resume: 0 }, observe);
        // Only this word is set: the two others stay those of an older activation until the guest is left.
        let [exit_fp, exit_pc, _] = self.exit_state(store);
        self.set_exit_state(store, [exit_fp, exit_pc, self.registers.fp]);
        observe(self);
    }

    fn call_guest(&mut self, choice: usize, observe: Observe<'_, A>) {
        let guest = self.program.of_kind(choice % 2, &[CodeKind::Guest], choice >> 1);
        let resume = self.set_resume();
        self.call(guest, resume, Shadow::Guest { function: guest, resume: 0 }, observe);
    }

    /// Chooses where the function that runs now goes on after its next call.
    fn set_resume(&mut self) -> usize {
        let address = self.function().map_or(0x40, |function| self.resume_address(function));
        if let Some(
            Shadow::Entry { resume, .. } | Shadow::Guest { resume, .. } | Shadow::Exit { resume, .. },
        ) = self.shadow.last_mut()
        {
            *resume = address;
        }
        address
    }

    /// Calls a trampoline of the image that the caller is in.
    fn call_trampoline(&mut self, choice: usize, observe: Observe<'_, A>) {
        let image = self.program.functions[self.function().expect("a caller")].image;
        let kinds = [CodeKind::ExitTrampoline, CodeKind::BuiltinTrampoline];
        let function = self.program.of_kind(image, &kinds, choice);
        let resume = self.set_resume();
        self.call(function, resume, Shadow::Exit { function, resume: 0, frame: 0 }, observe);
        let fp = self.registers.fp;
        if let Some(Shadow::Exit { frame, .. }) = self.shadow.last_mut() {
            *frame = fp;
        }
    }

    /// The trampoline that runs now notes the exit state and calls the host.
    fn call_host(&mut self, choice: usize, observe: Observe<'_, A>) {
        let store = self.store().expect("a store");
        let [_, _, entry_fp] = self.exit_state(store);
        let fp = self.registers.fp;
        self.set_exit_state(store, [fp, self.read(fp + A::RETURN_ADDRESS_OFFSET), entry_fp]);
        observe(self);
        let resume = self.set_resume();
        let mut registers = self.registers;
        A::call(&mut registers, resume, &mut |address, value| self.write(address, value));
        self.registers = registers;
        self.host_frame(1 + choice % 5);
        observe(self);
    }

    /// Leaves the entry trampoline, which runs now, for the host.
    fn leave_entry(&mut self, observe: Observe<'_, A>) {
        let Some(Shadow::Entry { store, activation, .. }) = self.shadow.last().cloned() else { return };
        self.leave(observe);
        self.end(store, activation, observe);
    }

    /// Unwinds to the host function that is `depth` entries down, as a trap or a panic do it.
    fn unwind(&mut self, depth: usize, observe: Observe<'_, A>) {
        for _ in 0..depth {
            let Some(entry) = self.shadow.iter().rposition(|shadow| matches!(shadow, Shadow::Entry { .. }))
            else {
                return;
            };
            let Shadow::Entry { store, activation, .. } = self.shadow[entry] else { unreachable!() };
            self.shadow.truncate(entry);
            self.registers.pc = 0x18;
            self.registers.fp = self.any_word();
            self.end(store, activation, observe);
        }
    }

    /// The host has got out of a guest, and ends its activation. What the store knows of the guest outlasts it: the host
    /// may do anything meanwhile, also in frames that keep the words of those that are gone.
    fn end(&mut self, store: usize, activation: usize, observe: Observe<'_, A>) {
        self.registers.sp = activation;
        observe(self);
        let saved = [0, 1, 2].map(|word| self.read(activation + ACTIVATION_BYTES / 2 + 8 * word));
        self.youngest = self.read(activation + 8);
        observe(self);
        let depth = 16 * (self.random() % 24);
        self.registers.sp = (self.registers.sp - depth).max(self.base);
        observe(self);
        self.set_exit_state(store, saved);
        self.stores[store][6].store(self.read(activation + 24), Relaxed);
        observe(self);
        let Some(Shadow::Host { sp }) = self.shadow.last() else { unreachable!("hosts enter guests") };
        self.registers.sp = *sp;
        observe(self);
    }

    /// Does one thing that can be done now.
    pub(crate) fn act(&mut self, action: Action, observe: Observe<'_, A>) {
        let Action { what, choice } = action;
        let room = self.registers.sp - self.base > 1024;
        match self.shadow.last().expect("the bottom host function stays") {
            Shadow::Host { .. } => match what % 8 {
                0..=4 if room => self.enter(choice % 3, choice / 3, observe),
                5 => self.unwind(1 + choice % 2, observe),
                6 => self.unwind(1, observe),
                _ if self.shadow.len() > 1 => self.leave_host(observe),
                _ => {}
            },
            Shadow::Entry { .. } => match what % 8 {
                0..=5 if room => self.call_guest(choice, observe),
                6 if room => self.call_trampoline(choice, observe),
                _ => self.leave_entry(observe),
            },
            Shadow::Guest { .. } => match what % 8 {
                0..=3 if room => self.call_guest(choice, observe),
                4..=5 if room => self.call_trampoline(choice, observe),
                6 if choice.is_multiple_of(16) => self.unwind(1, observe),
                _ => self.leave(observe),
            },
            Shadow::Exit { .. } => match what % 8 {
                0..=4 if room => self.call_host(choice, observe),
                5 if room => self.call_guest(choice, observe),
                _ => self.leave(observe),
            },
        }
        observe(self);
    }

    /// The host function returns to the trampoline that has called it.
    fn leave_host(&mut self, observe: Observe<'_, A>) {
        self.shadow.pop();
        if let Some(Shadow::Exit { function, frame, .. }) = self.shadow.last() {
            let placed = self.program.functions[*function];
            self.registers.fp = *frame;
            self.registers.sp = *frame - placed.frame as usize;
            self.registers.pc = placed.start + placed.at.body;
        }
        observe(self);
    }

    /// The frames that a walk has to find, youngest first, from the shadow stack.
    pub(crate) fn truth(&self, table: CodeTable<'_>) -> Vec<Frame> {
        let mut frames = vec![];
        let mut younger: Option<&Shadow> = None;
        for (index, shadow) in self.shadow.iter().enumerate().rev() {
            let caller_is_guest =
                index.checked_sub(1).is_some_and(|below| matches!(self.shadow[below], Shadow::Guest { .. }));
            match (shadow, younger) {
                (Shadow::Guest { .. }, None) => frames.push(Frame::Instruction(self.registers.pc)),
                (Shadow::Guest { resume, .. }, Some(_)) => frames.push(Frame::ReturnAddress(*resume)),
                (Shadow::Exit { .. }, None) if caller_is_guest => {
                    frames.push(Frame::HostCall(self.registers.pc));
                }
                (Shadow::Exit { frame, resume, .. }, Some(Shadow::Host { .. })) if caller_is_guest => {
                    frames.push(Frame::HostCall(self.trampoline(table, *frame, *resume)));
                }
                _ => {}
            }
            younger = Some(shadow);
        }
        frames
    }

    /// The address in the trampoline, unless the words below its frame leave a doubt.
    fn trampoline(&self, table: CodeTable<'_>, frame: usize, resume: usize) -> usize {
        if !A::CALL_PUSHES_RETURN_ADDRESS {
            return 0;
        }
        let (image, _) = table.find(resume - 1).expect("a registered trampoline");
        let mut sizes: Vec<u32> =
            self.program.functions.iter().filter(|f| is_exit(f.kind)).map(|f| f.frame).collect();
        sizes.sort_unstable();
        sizes.dedup();
        let fitting: Vec<usize> = sizes
            .into_iter()
            .filter_map(|size| {
                let slot = frame - size as usize - 8;
                let call = (slot >= self.registers.sp).then(|| self.read(slot))?.checked_sub(1)?;
                let function = self.program.functions.iter().find(|f| (f.start..f.end).contains(&call))?;
                (image.text().contains(&call) && is_exit(function.kind) && function.frame == size)
                    .then_some(call)
            })
            .collect();
        assert!(fitting.contains(&(resume - 1)), "the trampoline's own call is always there");
        if let [only] = fitting[..] { only } else { 0 }
    }
}

fn is_exit(kind: CodeKind) -> bool {
    matches!(kind, CodeKind::ExitTrampoline | CodeKind::BuiltinTrampoline)
}
