//! What a hash takes in of what follows an operator.

use wasmparser::{
    BlockType, BrTable, Catch, Ieee32, Ieee64, MemArg, Ordering, ResumeTable, TryTable, V128, ValType,
};

use super::{Hash, LOWEST_ADDRESS, word};

/// What a hash takes in of an operator's immediate.
pub(super) trait Immediate {
    fn add_to(&self, hash: &mut Hash);
}

impl Immediate for u32 {
    fn add_to(&self, hash: &mut Hash) {
        hash.number(u64::from(*self));
    }
}

impl Immediate for u8 {
    fn add_to(&self, hash: &mut Hash) {
        hash.number(u64::from(*self));
    }
}

impl Immediate for [u8; 16] {
    fn add_to(&self, hash: &mut Hash) {
        let number = u128::from_le_bytes(*self);
        hash.number(number as u64);
        hash.number((number >> 64) as u64);
    }
}

impl Immediate for i32 {
    fn add_to(&self, hash: &mut Hash) {
        hash.constant(i64::from(*self));
    }
}

impl Immediate for i64 {
    fn add_to(&self, hash: &mut Hash) {
        hash.constant(*self);
    }
}

impl Immediate for Ieee32 {
    fn add_to(&self, hash: &mut Hash) {
        hash.number(u64::from(self.bits()));
    }
}

impl Immediate for Ieee64 {
    fn add_to(&self, hash: &mut Hash) {
        hash.number(self.bits());
    }
}

impl Immediate for V128 {
    fn add_to(&self, hash: &mut Hash) {
        self.bytes().add_to(hash);
    }
}

impl Immediate for MemArg {
    fn add_to(&self, hash: &mut Hash) {
        self.align.add_to(hash);
        hash.number(self.offset.min(LOWEST_ADDRESS));
    }
}

impl Immediate for Ordering {
    fn add_to(&self, hash: &mut Hash) {
        hash.number(match self {
            Ordering::AcqRel => const { word("acqrel") },
            Ordering::SeqCst => const { word("seqcst") },
        });
    }
}

impl Immediate for ValType {
    fn add_to(&self, hash: &mut Hash) {
        hash.number(match self {
            ValType::I32 => const { word("i32") },
            ValType::I64 => const { word("i64") },
            ValType::F32 => const { word("f32") },
            ValType::F64 => const { word("f64") },
            ValType::V128 => const { word("v128") },
            ValType::Ref(_) => const { word("ref") },
        });
    }
}

impl Immediate for BlockType {
    fn add_to(&self, hash: &mut Hash) {
        match self {
            BlockType::Empty => hash.number(const { word("empty") }),
            BlockType::Type(ty) => ty.add_to(hash),
            BlockType::FuncType(_) => hash.number(const { word("type") }),
        }
    }
}

impl Immediate for BrTable<'_> {
    fn add_to(&self, hash: &mut Hash) {
        // Damage ends the targets early, in the same place each time.
        self.targets().map_while(Result::ok).for_each(|target| target.add_to(hash));
        self.default().add_to(hash);
    }
}

impl Immediate for TryTable {
    fn add_to(&self, hash: &mut Hash) {
        self.ty.add_to(hash);
        for catch in &self.catches {
            let (kind, label) = match *catch {
                Catch::One { label, .. } => (word("one"), label),
                Catch::OneRef { label, .. } => (word("one ref"), label),
                Catch::All { label } => (word("all"), label),
                Catch::AllRef { label } => (word("all ref"), label),
            };
            hash.number(kind);
            label.add_to(hash);
        }
    }
}

impl Immediate for ResumeTable {
    fn add_to(&self, hash: &mut Hash) {
        hash.number(self.handlers.len() as u64);
    }
}

impl<A: Immediate, B: Immediate> Immediate for (A, B) {
    fn add_to(&self, hash: &mut Hash) {
        self.0.add_to(hash);
        self.1.add_to(hash);
    }
}

impl<T: Immediate> Immediate for Vec<T> {
    fn add_to(&self, hash: &mut Hash) {
        hash.number(self.len() as u64);
        self.iter().for_each(|element| element.add_to(hash));
    }
}

/// Every name that the parser gives an immediate; a new one does not compile until it is decided about.
macro_rules! immediate {
    ($hash:ident, array_elem_index, $value:ident) => {
        let _ = $value;
    };
    ($hash:ident, array_data_index, $value:ident) => {
        let _ = $value;
    };
    ($hash:ident, array_type_index, $value:ident) => {
        let _ = $value;
    };
    ($hash:ident, array_type_index_dst, $value:ident) => {
        let _ = $value;
    };
    ($hash:ident, array_type_index_src, $value:ident) => {
        let _ = $value;
    };
    ($hash:ident, argument_index, $value:ident) => {
        let _ = $value;
    };
    ($hash:ident, cont_type_index, $value:ident) => {
        let _ = $value;
    };
    ($hash:ident, data_index, $value:ident) => {
        let _ = $value;
    };
    ($hash:ident, dst_mem, $value:ident) => {
        let _ = $value;
    };
    ($hash:ident, dst_table, $value:ident) => {
        let _ = $value;
    };
    ($hash:ident, elem_index, $value:ident) => {
        let _ = $value;
    };
    ($hash:ident, from_ref_type, $value:ident) => {
        let _ = $value;
    };
    ($hash:ident, function_index, $value:ident) => {
        let _ = $value;
    };
    ($hash:ident, global_index, $value:ident) => {
        let _ = $value;
    };
    ($hash:ident, hty, $value:ident) => {
        let _ = $value;
    };
    ($hash:ident, mem, $value:ident) => {
        let _ = $value;
    };
    ($hash:ident, result_index, $value:ident) => {
        let _ = $value;
    };
    ($hash:ident, src_mem, $value:ident) => {
        let _ = $value;
    };
    ($hash:ident, src_table, $value:ident) => {
        let _ = $value;
    };
    ($hash:ident, struct_type_index, $value:ident) => {
        let _ = $value;
    };
    ($hash:ident, table, $value:ident) => {
        let _ = $value;
    };
    ($hash:ident, table_index, $value:ident) => {
        let _ = $value;
    };
    ($hash:ident, tag_index, $value:ident) => {
        let _ = $value;
    };
    ($hash:ident, to_ref_type, $value:ident) => {
        let _ = $value;
    };
    ($hash:ident, type_index, $value:ident) => {
        let _ = $value;
    };

    ($hash:ident, array_size, $value:ident) => {
        $value.add_to($hash);
    };
    ($hash:ident, blockty, $value:ident) => {
        $value.add_to($hash);
    };
    ($hash:ident, field_index, $value:ident) => {
        $value.add_to($hash);
    };
    ($hash:ident, lane, $value:ident) => {
        $value.add_to($hash);
    };
    ($hash:ident, lanes, $value:ident) => {
        $value.add_to($hash);
    };
    ($hash:ident, local_index, $value:ident) => {
        $value.add_to($hash);
    };
    ($hash:ident, memarg, $value:ident) => {
        $value.add_to($hash);
    };
    ($hash:ident, ordering, $value:ident) => {
        $value.add_to($hash);
    };
    ($hash:ident, relative_depth, $value:ident) => {
        $value.add_to($hash);
    };
    ($hash:ident, resume_table, $value:ident) => {
        $value.add_to($hash);
    };
    ($hash:ident, targets, $value:ident) => {
        $value.add_to($hash);
    };
    ($hash:ident, try_table, $value:ident) => {
        $value.add_to($hash);
    };
    ($hash:ident, ty, $value:ident) => {
        $value.add_to($hash);
    };
    ($hash:ident, tys, $value:ident) => {
        $value.add_to($hash);
    };
    ($hash:ident, value, $value:ident) => {
        $value.add_to($hash);
    };
}

pub(super) use immediate;
