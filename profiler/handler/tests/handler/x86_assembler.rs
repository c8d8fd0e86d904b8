//! Encodes the instructions of prologues, epilogues and tail calls the way Cranelift's assembler does: 8-bit
//! displacements and immediates where they fit, the `mr` form for moves between registers.

/// A general purpose register by its hardware number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gpr(pub(crate) u8);

pub(crate) const RAX: Gpr = Gpr(0);
pub(crate) const RBX: Gpr = Gpr(3);
pub(crate) const RSP: Gpr = Gpr(4);
pub(crate) const RBP: Gpr = Gpr(5);
pub(crate) const RDI: Gpr = Gpr(7);
pub(crate) const R10: Gpr = Gpr(10);
pub(crate) const R11: Gpr = Gpr(11);

/// A place in the code that jumps lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Label(usize);

/// Machine code under construction.
#[derive(Default)]
pub(crate) struct Assembler {
    pub(crate) code: Vec<u8>,
    labels: Vec<Option<usize>>,
    fixups: Vec<(usize, Label)>,
}

impl Assembler {
    fn rex(&mut self, wide: bool, reg: Gpr, rm: Gpr) {
        let rex = 0x40 | u8::from(wide) << 3 | (reg.0 >> 3) << 2 | rm.0 >> 3;
        if rex != 0x40 {
            self.code.push(rex);
        }
    }

    fn modrm_register(&mut self, reg: u8, rm: Gpr) {
        self.code.push(0b11 << 6 | (reg & 7) << 3 | rm.0 & 7);
    }

    fn modrm_memory(&mut self, reg: Gpr, base: Gpr, displacement: i32) {
        let short = i8::try_from(displacement);
        let mode = match short {
            Ok(0) if base.0 & 7 != 5 => 0b00,
            Ok(_) => 0b01,
            Err(_) => 0b10,
        };
        self.code.push(mode << 6 | (reg.0 & 7) << 3 | base.0 & 7);
        if base.0 & 7 == 4 {
            self.code.push(0x24);
        }
        match (mode, short) {
            (0b00, _) => {}
            (0b01, Ok(short)) => self.code.push(short as u8),
            _ => self.code.extend(displacement.to_le_bytes()),
        }
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.code.extend(bytes);
    }

    pub(crate) fn push(&mut self, register: Gpr) {
        self.rex(false, Gpr(0), register);
        self.code.push(0x50 | register.0 & 7);
    }

    pub(crate) fn pop(&mut self, register: Gpr) {
        self.rex(false, Gpr(0), register);
        self.code.push(0x58 | register.0 & 7);
    }

    /// `mov to, from`
    pub(crate) fn mov(&mut self, to: Gpr, from: Gpr) {
        self.rex(true, from, to);
        self.code.push(0x89);
        self.modrm_register(from.0, to);
    }

    /// `mov to, [base+displacement]`
    pub(crate) fn load(&mut self, to: Gpr, base: Gpr, displacement: i32) {
        self.rex(true, to, base);
        self.code.push(0x8b);
        self.modrm_memory(to, base, displacement);
    }

    /// `mov [base+displacement], from`
    pub(crate) fn store(&mut self, base: Gpr, displacement: i32, from: Gpr) {
        self.rex(true, from, base);
        self.code.push(0x89);
        self.modrm_memory(from, base, displacement);
    }

    /// `mov to, immediate`, in the form that is sign-extended.
    pub(crate) fn mov_immediate(&mut self, to: Gpr, immediate: i32) {
        self.rex(true, Gpr(0), to);
        self.code.push(0xc7);
        self.modrm_register(0, to);
        self.code.extend(immediate.to_le_bytes());
    }

    fn arithmetic(&mut self, operation: u8, register: Gpr, immediate: i32) {
        self.rex(true, Gpr(0), register);
        match i8::try_from(immediate) {
            Ok(short) => {
                self.code.push(0x83);
                self.modrm_register(operation, register);
                self.code.push(short as u8);
            }
            Err(_) => {
                self.code.push(0x81);
                self.modrm_register(operation, register);
                self.code.extend(immediate.to_le_bytes());
            }
        }
    }

    pub(crate) fn add(&mut self, register: Gpr, immediate: i32) {
        self.arithmetic(0, register, immediate);
    }

    pub(crate) fn sub(&mut self, register: Gpr, immediate: i32) {
        self.arithmetic(5, register, immediate);
    }

    /// `cmp left, right`
    pub(crate) fn cmp(&mut self, left: Gpr, right: Gpr) {
        self.rex(true, left, right);
        self.code.push(0x3b);
        self.modrm_register(left.0, right);
    }

    /// `call register`
    pub(crate) fn call(&mut self, register: Gpr) {
        self.rex(false, Gpr(0), register);
        self.code.push(0xff);
        self.modrm_register(2, register);
    }

    /// `jmp register`
    pub(crate) fn jmp_register(&mut self, register: Gpr) {
        self.rex(false, Gpr(0), register);
        self.code.push(0xff);
        self.modrm_register(4, register);
    }

    /// `jmp` to `target`, an offset that may lie outside the code.
    pub(crate) fn jmp_offset(&mut self, target: i64) {
        let displacement = i32::try_from(target - (self.code.len() as i64 + 5)).unwrap();
        self.code.push(0xe9);
        self.code.extend(displacement.to_le_bytes());
    }

    pub(crate) fn ret(&mut self, pops: u16) {
        if pops == 0 {
            self.code.push(0xc3);
        } else {
            self.code.push(0xc2);
            self.code.extend(pops.to_le_bytes());
        }
    }

    pub(crate) fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    pub(crate) fn bind(&mut self, label: Label) {
        self.labels[label.0] = Some(self.code.len());
    }

    fn fixup(&mut self, label: Label) {
        self.fixups.push((self.code.len(), label));
        self.code.extend([0; 4]);
    }

    pub(crate) fn jmp(&mut self, label: Label) {
        self.code.push(0xe9);
        self.fixup(label);
    }

    pub(crate) fn ja(&mut self, label: Label) {
        self.code.extend([0x0f, 0x87]);
        self.fixup(label);
    }

    pub(crate) fn jne(&mut self, label: Label) {
        self.code.extend([0x0f, 0x85]);
        self.fixup(label);
    }

    /// The jump table sequence: `lea base, [rip+table]; movsxd entry, [base+index*4]; add base, entry; jmp base`
    /// and the table behind it.
    pub(crate) fn jump_table(&mut self, index: Gpr, base: Gpr, entry: Gpr, targets: &[Label]) {
        let table = self.label();
        self.rex(true, base, Gpr(0));
        self.code.push(0x8d);
        self.code.push((base.0 & 7) << 3 | 0b101);
        self.fixup(table);
        self.code.push(0x48 | (entry.0 >> 3) << 2 | (index.0 >> 3) << 1 | base.0 >> 3);
        self.code.push(0x63);
        let mode = if base.0 & 7 == 5 { 0b01 } else { 0b00 };
        self.code.push(mode << 6 | (entry.0 & 7) << 3 | 0b100);
        self.code.push(0b10 << 6 | (index.0 & 7) << 3 | base.0 & 7);
        if mode == 0b01 {
            self.code.push(0);
        }
        self.rex(true, base, entry);
        self.code.push(0x03);
        self.modrm_register(base.0, entry);
        self.jmp_register(base);
        self.bind(table);
        for (index, target) in targets.iter().enumerate() {
            let at = self.code.len();
            self.fixup(*target);
            // Relative to the table's start, not to the entry's end.
            let addend = i32::try_from(4 * index + 4).unwrap();
            self.code[at..at + 4].copy_from_slice(&addend.to_le_bytes());
        }
    }

    /// The finished code. Each fixup adds the distance from its own end to its label.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        for (at, label) in std::mem::take(&mut self.fixups) {
            let target = self.labels[label.0].expect("a bound label") as i64;
            let bytes = &mut self.code[at..at + 4];
            let addend = i32::from_le_bytes(bytes.try_into().unwrap());
            let displacement = i32::try_from(target - (at as i64 + 4)).unwrap() + addend;
            bytes.copy_from_slice(&displacement.to_le_bytes());
        }
        self.code
    }
}
