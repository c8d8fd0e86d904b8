//! The function bodies of a code section.

use std::ops::Range;

/// One function body, from its locals to its end, in bytes from the start of the code section's contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Body {
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Body {
    pub(crate) fn bytes(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    pub(crate) fn contains(self, offset: u32) -> bool {
        self.start <= offset && offset < self.end
    }
}

/// All bodies in the order of the functions, which is also that of their offsets.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Bodies {
    bodies: Vec<Body>,
    /// Whether a body's start is that of the first instruction in it that has machine code, since nothing better
    /// is known, and not that of its locals.
    is_approximate: bool,
}

impl Bodies {
    /// Bodies as a binary has them. Their order is that of their offsets.
    pub(crate) fn exact(bodies: Vec<Body>) -> Bodies {
        Bodies { bodies, is_approximate: false }
    }

    /// Bodies of which only the offset of the first instruction that has machine code is known, `None` for a
    /// function without one. Empty if these are not in the order of the functions.
    pub(crate) fn approximate(lowest_offsets: &[Option<u32>]) -> Bodies {
        let mut bodies = Vec::with_capacity(lowest_offsets.len());
        let mut end = u32::MAX;
        for first in lowest_offsets.iter().rev() {
            let start = first.unwrap_or(end);
            if start > end {
                return Bodies::default();
            }
            bodies.push(Body { start, end });
            end = start;
        }
        bodies.reverse();
        Bodies { bodies, is_approximate: true }
    }

    pub(crate) fn len(&self) -> usize {
        self.bodies.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Body> + '_ {
        self.bodies.iter().copied()
    }

    /// The body of the `index`th function that the module defines.
    pub(crate) fn get(&self, index: u32) -> Option<Body> {
        self.bodies.get(usize::try_from(index).ok()?).copied()
    }

    /// The body that covers an offset, and its index among the functions that the module defines.
    pub(crate) fn find(&self, offset: u32) -> Option<(u32, Body)> {
        let index = self.bodies.partition_point(|body| body.start <= offset).checked_sub(1)?;
        let body = self.bodies[index];
        body.contains(offset).then_some((u32::try_from(index).ok()?, body))
    }

    /// The body that starts at an address: exactly there, and not just somewhere around it. If starts are
    /// approximate, the address must be between the first instructions of the function before and of its own.
    pub(crate) fn starting_at(&self, address: u64) -> Option<Body> {
        /// Before the first body come the number of functions and the size of that body.
        const FIRST_POSSIBLE: u32 = 2;
        let address = u32::try_from(address).ok().filter(|address| *address >= FIRST_POSSIBLE)?;
        if !self.is_approximate {
            return self.find(address).map(|(_, body)| body).filter(|body| body.start == address);
        }
        let index = self.bodies.partition_point(|body| body.start < address);
        self.bodies[index..].iter().find(|body| body.start < body.end).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_bodies() {
        let bodies = Bodies::exact(vec![Body { start: 2, end: 4 }, Body { start: 5, end: 72 }]);
        assert_eq!(bodies.find(1), None);
        assert_eq!(bodies.find(3), Some((0, Body { start: 2, end: 4 })));
        assert_eq!(bodies.find(4), None, "the size of the second body");
        assert_eq!(bodies.starting_at(5), Some(Body { start: 5, end: 72 }));
        assert_eq!(bodies.starting_at(6), None);
        assert_eq!(bodies.starting_at(0), None);
        assert_eq!(bodies.starting_at(u64::from(u32::MAX)), None);
    }

    #[test]
    fn approximate_bodies() {
        let bodies = Bodies::approximate(&[Some(4), None, Some(10)]);
        assert_eq!(bodies.find(9), Some((0, Body { start: 4, end: 10 })));
        assert_eq!(bodies.get(1), Some(Body { start: 10, end: 10 }), "without code");
        assert_eq!(bodies.starting_at(3), Some(Body { start: 4, end: 10 }));
        assert_eq!(bodies.starting_at(5), Some(Body { start: 10, end: u32::MAX }));
        assert_eq!(bodies.starting_at(0), None, "where linkers put dropped code");
        assert_eq!(bodies.starting_at(11), None);
        assert!(Bodies::approximate(&[Some(10), Some(4)]).len() == 0);
    }
}
