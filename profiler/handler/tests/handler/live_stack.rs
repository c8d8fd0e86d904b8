//! Reads of the live stack: a word if it lies wholly inside, nothing otherwise.

use flamewalk_handler::memory::{CopiedMemory, LiveStack, Memory};

#[test]
fn only_whole_aligned_words_of_the_live_part_are_read() {
    let words: Vec<usize> = (100..116).collect();
    let base = words.as_ptr().expose_provenance();
    let bounds = base..base + 8 * words.len();
    for sp in [base, base + 8, base + 13, base + 120, base + 127] {
        // SAFETY: the words outlive the stack.
        let live = unsafe { LiveStack::new() }.part(sp..bounds.end);
        assert_eq!(live.live_stack(), sp..bounds.end);
        for address in (base - 32..bounds.end + 32).chain([0, 1, 8, usize::MAX, usize::MAX - 7]) {
            let inside = address >= sp && address % 8 == 0 && address < bounds.end;
            let expected = inside.then(|| words[(address - base) / 8]);
            assert_eq!(live.stack_word(address), expected, "{address:#x} with {sp:#x}");
            let first = (sp - base).div_ceil(8);
            let stack_start = base + 8 * first;
            let copied = CopiedMemory { stack_start, words: &words[first..], ..CopiedMemory::default() };
            assert_eq!(copied.stack_word(address), expected);
            let second = words.get((address.wrapping_sub(base) / 8).wrapping_add(1));
            let expected = expected.and_then(|first| second.map(|second| [first, *second]));
            assert_eq!(live.stack_pair(address), expected);
            assert_eq!(copied.stack_pair(address), expected);
        }
    }
}

#[test]
fn parts_of_copies_hold_what_was_copied() {
    let words: Vec<usize> = (100..116).collect();
    let whole = CopiedMemory { stack_start: 0x1000, words: &words, ..CopiedMemory::default() };
    for (part, expected) in [
        (0x1000..0x1080, 0x1000..0x1080),
        (0x1009..0x1041, 0x1010..0x1040),
        (0x1020..0x1020, 0x1020..0x1020),
        (0..usize::MAX, 0x1000..0x1080),
    ] {
        let copied = whole.part(part.clone());
        assert_eq!(copied.live_stack(), expected, "{part:x?}");
        assert!((0xff0..0x1090).step_by(8).all(|address| {
            copied.stack_word(address) == whole.stack_word(address).filter(|_| expected.contains(&address))
        }));
    }
    for (start, end) in [(0x1030, 0x1010), (0x2000, 0x3000), (0, 8)] {
        assert!(whole.part(start..end).live_stack().is_empty());
    }
}
