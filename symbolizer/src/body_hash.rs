//! A hash of a function's body that survives a rebuild of the guest, to find the function again without its name.
//!
//! | kept | left out, since a rebuild renumbers or moves it |
//! |---|---|
//! | the types of the locals | indices of functions, types, globals, tables, memories, tags, segments |
//! | every instruction, in order; with it the nesting of blocks | heap types, which may be indices |
//! | labels, lanes, indices of locals and fields | integers that may be addresses: 1,024 and above, up to 32 bits |
//! | floating-point, vector and small or large integer constants | offsets of loads and stores from 1,024 on |
//!
//! Linkers put no data below address 1,024. Places in tables of functions are small constants as well and cannot be told
//! from others: a function that takes another one's address gets another hash when the table shifts. Hence the upper half of
//! the hash leaves out every integer constant up to 32 bits, and says whether two functions are the same but for those.
//!
//! Two functions with the same hash need not be the same function: short ones often coincide.

use std::hash::Hasher;

use fnv::FnvHasher;
use wasmparser::{
    BinaryReader, BlockType, BrTable, Catch, FunctionBody, Ieee32, Ieee64, MemArg, Operator, Ordering,
    ResumeTable, TryTable, V128, ValType,
};

/// The lowest constant that may be an address.
const LOWEST_ADDRESS: u64 = 1024;

/// The hash of a body, from its locals to its end, as it lies in the code section. The upper half does not take in
/// integer constants up to 32 bits. The same in every version of this crate, since profiles keep it. `None` if the body
/// is not well-formed.
pub(crate) fn body_hash(body: &[u8]) -> Option<u64> {
    let body = FunctionBody::new(BinaryReader::new(body, 0));
    let mut hash = Hash { code: Words::default(), constants: Words::default() };
    for local in body.get_locals_reader().ok()? {
        let (count, ty) = local.ok()?;
        (count, ty).add_to(&mut hash);
    }
    for operator in body.get_operators_reader().ok()? {
        hash.operator(&operator.ok()?)?;
    }
    Some(hash.finish())
}

struct Hash {
    /// All but the constants that may be places in a table.
    code: Words,
    /// These.
    constants: Words,
}

/// Takes bytes in an order of its own, unlike those of the standard library's.
#[derive(Default)]
struct Words(FnvHasher);

/// The powers of FNV's prime up to the eighth.
const POWERS_OF_PRIME: [u64; 9] = {
    let mut powers = [1_u64; 9];
    let mut power = 1;
    while power < powers.len() {
        powers[power] = powers[power - 1].wrapping_mul(0x0100_0000_01b3);
        power += 1;
    }
    powers
};

impl Words {
    fn text(&mut self, text: &str) {
        self.0.write(text.as_bytes());
        // No text contains it.
        self.0.write_u8(0xff);
    }

    /// Takes in all eight bytes, the least significant one first. Those that are 0, which nearly all are, only multiply the
    /// hash by the prime.
    fn number(&mut self, number: u64) {
        let significant = (u64::BITS - number.leading_zeros()).div_ceil(8) as usize;
        self.0.write(&number.to_le_bytes()[..significant]);
        let multiplied = self.0.finish().wrapping_mul(POWERS_OF_PRIME[8 - significant]);
        self.0 = FnvHasher::with_key(multiplied);
    }

    /// Of 32 bits, in which each of the 64 has its part.
    fn folded(&self) -> u64 {
        let hash = self.0.finish();
        (hash ^ hash >> 32) & u64::from(u32::MAX)
    }
}

impl Hash {
    fn finish(&self) -> u64 {
        let lower = self.code.0.finish() & u64::from(u32::MAX);
        self.code.folded() << 32 | (lower ^ self.constants.folded())
    }

    fn text(&mut self, text: &str) {
        self.code.text(text);
    }

    fn number(&mut self, number: u64) {
        self.code.number(number);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.code.0.write(bytes);
    }

    /// An integer, which may be an address or a place in a table.
    fn constant(&mut self, value: i64) {
        let magnitude = value.unsigned_abs();
        if u32::try_from(magnitude).is_err() {
            self.code.number(value.cast_unsigned());
        } else if magnitude >= LOWEST_ADDRESS {
            self.constants.number(LOWEST_ADDRESS);
        } else {
            self.constants.number(value.cast_unsigned());
        }
    }
}

/// What a hash takes in of an operator's immediate.
trait Immediate {
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
        hash.bytes(self);
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
        hash.bytes(self.bytes());
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
        hash.text(match self {
            Ordering::AcqRel => "acqrel",
            Ordering::SeqCst => "seqcst",
        });
    }
}

impl Immediate for ValType {
    fn add_to(&self, hash: &mut Hash) {
        hash.text(match self {
            ValType::I32 => "i32",
            ValType::I64 => "i64",
            ValType::F32 => "f32",
            ValType::F64 => "f64",
            ValType::V128 => "v128",
            ValType::Ref(_) => "ref",
        });
    }
}

impl Immediate for BlockType {
    fn add_to(&self, hash: &mut Hash) {
        match self {
            BlockType::Empty => hash.text("empty"),
            BlockType::Type(ty) => ty.add_to(hash),
            BlockType::FuncType(_) => hash.text("type"),
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
                Catch::One { label, .. } => ("one", label),
                Catch::OneRef { label, .. } => ("one ref", label),
                Catch::All { label } => ("all", label),
                Catch::AllRef { label } => ("all ref", label),
            };
            hash.text(kind);
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

macro_rules! define_operator {
    ($( @$proposal:ident $op:ident $({ $($arg:ident: $ty:ty),* })? => $visit:ident ($($ann:tt)*))*) => {
        impl Hash {
            /// `None` for an operator that the parser's list does not have.
            fn operator(&mut self, operator: &Operator<'_>) -> Option<()> {
                let hash = self;
                match operator {
                    $(Operator::$op $({ $($arg),* })? => {
                        hash.text(stringify!($op));
                        $($(immediate!(hash, $arg, $arg);)*)?
                    })*
                    _ => return None,
                }
                Some(())
            }
        }
    };
}

wasmparser::for_each_operator!(define_operator);

#[cfg(test)]
mod tests {
    use super::*;

    /// The hash of a module's last function.
    fn hash(text: &str) -> u64 {
        let binary = wat::parse_str(text).unwrap();
        let bodies =
            wasmparser::Parser::new(0).parse_all(&binary).filter_map(|payload| match payload.unwrap() {
                wasmparser::Payload::CodeSectionEntry(body) => Some(body.range()),
                _ => None,
            });
        body_hash(&binary[bodies.last().unwrap()]).unwrap()
    }

    /// One function after all that a rebuild can put before it.
    fn rebuilt(before: &str, types: &str, body: &str) -> u64 {
        hash(&format!(
            "(module {types} (import \"env\" \"a\" (func $a (param i32))) {before} (memory 1) (table 9 funcref) \
             (global $g (mut i32) (i32.const 0)) (func $f (param i32) (result i32) (local i64 f32) {body}))"
        ))
    }

    const BODY: &str = "(block (br_if 0 (i32.eqz (local.get 0))) (call $a (i32.const 1048576)))
        (call_indirect (param i32) (local.get 0) (i32.const 7))
        (i32.add (i32.load offset=70000 (global.get $g)) (i32.const 12))";

    #[test]
    fn what_a_rebuild_moves_does_not_count() {
        let original = rebuilt("", "", BODY);
        let before = "(import \"env\" \"b\" (func)) (import \"env\" \"g\" (global i32)) (import \"env\" \"t\" (table 1 funcref))";
        assert_eq!(rebuilt(before, "(type (func (result f64)))", BODY), original);
        assert_eq!(rebuilt("", "", &BODY.replace("1048576", "1052672")), original);
        assert_eq!(rebuilt("", "", &BODY.replace("70000", "80000")), original);
    }

    #[test]
    fn what_makes_it_another_function_counts() {
        let original = rebuilt("", "", BODY);
        for (from, to) in [
            ("i32.add", "i32.sub"),
            ("i32.const 12", "i32.const 13"),
            ("i32.const 7", "i32.const 1048576"),
            ("offset=70000", "offset=16"),
            ("br_if 0", "br_if 1"),
            ("(local.get 0) (i32.const 7)", "(i32.const 0) (i32.const 7)"),
            ("(block ", "(loop "),
        ] {
            let other = BODY.replace(from, to);
            assert_ne!(other, BODY);
            assert_ne!(rebuilt("", "", &other), original, "{from} or {to}");
        }
        let other_local = "(module (func (param i32) (result i32) (local i64) local.get 0))";
        assert_ne!(hash(other_local), hash(&other_local.replace("i64", "f64")));
    }

    /// SQLite's `sqlite3VdbeExec` takes the addresses of five functions. Three others were put before them in the table,
    /// and it could not be found again.
    #[test]
    fn the_upper_half_does_not_take_in_places_in_tables() {
        let original = rebuilt("", "", BODY);
        let shifted = rebuilt("", "", &BODY.replace("i32.const 12", "i32.const 15"));
        assert_ne!(shifted, original);
        assert_eq!(shifted >> 32, original >> 32);
        for (from, to) in [("i32.add", "i32.sub"), ("offset=70000", "offset=16"), ("br_if 0", "br_if 1")] {
            assert_ne!(rebuilt("", "", &BODY.replace(from, to)) >> 32, original >> 32, "{from} or {to}");
        }
    }

    #[test]
    fn large_constants_are_no_addresses() {
        let function = |constant: &str| hash(&format!("(module (func (result i64) i64.const {constant}))"));
        assert_ne!(function("0x100000000"), function("0x100000001"));
        assert_eq!(function("0x10000"), function("0x10001"));
    }

    /// Profiles keep the hash, so that a later version has to compute the same.
    #[test]
    fn the_hash_stays_the_same() {
        assert_eq!(
            hash("(module (func (param i32) (result i32) local.get 0 i32.const 3 i32.mul))"),
            825_306_873_163_131_877
        );
    }

    #[test]
    fn damage_has_no_hash() {
        assert_eq!(body_hash(&[]), None);
        assert_eq!(body_hash(&[0, 0x20]), None);
        assert_eq!(body_hash(&[0xff; 40]), None);
    }
}
