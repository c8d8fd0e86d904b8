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

mod immediate;

use wasmparser::{BinaryReader, FunctionBody, VisitOperator, VisitSimdOperator};

use immediate::{Immediate, immediate};

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
    let mut operators = body.get_operators_reader().ok()?;
    while !operators.eof() {
        operators.visit_operator(&mut hash).ok()?;
    }
    Some(hash.finish())
}

/// Takes in operators that are read.
struct Hash {
    /// All but the constants that may be places in a table.
    code: Words,
    /// These.
    constants: Words,
}

/// A hash of words in their order, by multiplications that are folded, as in wyhash. The hashes of crates change with
/// their versions.
struct Words(u64);

impl Default for Words {
    fn default() -> Self {
        Self(word("body"))
    }
}

impl Words {
    /// An odd number without a pattern: the digits of pi after the point.
    const FACTOR: u64 = 0x243f_6a88_85a3_08d3;

    fn number(&mut self, number: u64) {
        let product = u128::from(self.0 ^ number) * u128::from(Self::FACTOR);
        self.0 = product as u64 ^ (product >> 64) as u64;
    }

    /// Of 32 bits, in which each of the 64 has its part.
    fn folded(&self) -> u64 {
        (self.0 ^ self.0 >> 32) & u64::from(u32::MAX)
    }
}

/// What stands for a name, made while this crate is compiled: its FNV-1a hash.
const fn word(name: &str) -> u64 {
    let (bytes, mut position) = (name.as_bytes(), 0);
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    while position < bytes.len() {
        hash = (hash ^ bytes[position] as u64).wrapping_mul(0x0100_0000_01b3);
        position += 1;
    }
    hash
}

impl Hash {
    fn finish(&self) -> u64 {
        let lower = self.code.0 & u64::from(u32::MAX);
        self.code.folded() << 32 | (lower ^ self.constants.folded())
    }

    fn number(&mut self, number: u64) {
        self.code.number(number);
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

macro_rules! define_visits {
    ($( @$proposal:ident $op:ident $({ $($arg:ident: $ty:ty),* })? => $visit:ident ($($ann:tt)*))*) => {
        $(fn $visit(&mut self $($(, $arg: $ty)*)?) {
            self.number(const { word(stringify!($op)) });
            $($(immediate!(self, $arg, $arg);)*)?
        })*
    };
}

impl<'a> VisitOperator<'a> for Hash {
    type Output = ();

    fn simd_visitor(&mut self) -> Option<&mut dyn VisitSimdOperator<'a, Output = ()>> {
        Some(self)
    }

    wasmparser::for_each_visit_operator!(define_visits);
}

impl VisitSimdOperator<'_> for Hash {
    wasmparser::for_each_visit_simd_operator!(define_visits);
}

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
            6_656_063_998_854_335_957
        );
    }

    #[test]
    fn damage_has_no_hash() {
        assert_eq!(body_hash(&[]), None);
        assert_eq!(body_hash(&[0, 0x20]), None);
        assert_eq!(body_hash(&[0xff; 40]), None);
    }
}
