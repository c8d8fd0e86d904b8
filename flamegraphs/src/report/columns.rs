//! Columns of numbers as bytes: each number in groups of seven bits, lowest first, a set top bit for "more follows"
//! (unsigned LEB128). Small numbers are short, and the compression that follows sees what repeats.

/// Columns, one after the other.
#[derive(Default)]
pub(super) struct Columns {
    pub(super) bytes: Vec<u8>,
    /// Name, numbers and bytes of each, in order.
    pub(super) index: Vec<(&'static str, usize, usize)>,
}

impl Columns {
    /// Appends a column.
    pub(super) fn push(&mut self, name: &'static str, numbers: impl IntoIterator<Item = u64>) {
        let (mut length, start) = (0, self.bytes.len());
        for mut number in numbers {
            while number >= 0x80 {
                self.bytes.push(number as u8 | 0x80);
                number >>= 7;
            }
            self.bytes.push(number as u8);
            length += 1;
        }
        self.index.push((name, length, self.bytes.len() - start));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_leb128() {
        let mut columns = Columns::default();
        columns.push("a", [0, 127, 128, 624_485]);
        columns.push("b", [u64::MAX]);
        let mut expected = vec![0, 0x7f, 0x80, 1, 0xe5, 0x8e, 0x26];
        expected.extend([0xff; 9]);
        expected.push(1);
        assert_eq!(columns.bytes, expected);
        assert_eq!(columns.index, [("a", 4, 7), ("b", 1, 10)]);
    }
}
