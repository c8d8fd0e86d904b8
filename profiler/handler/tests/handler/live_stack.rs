//! Reads of the live stack: a word if it lies wholly inside, nothing otherwise.

use flamewalk_handler::memory::{CopiedMemory, LiveStack, Memory};

#[test]
fn only_whole_aligned_words_of_the_live_part_are_read() {
    let words: Vec<usize> = (100..116).collect();
    let base = words.as_ptr().expose_provenance();
    let bounds = base..base + 8 * words.len();
    for sp in [base, base + 8, base + 13, base + 120, base + 127] {
        // SAFETY: the words outlive the stack.
        let live = unsafe { LiveStack::new(sp, &bounds) }.expect("inside");
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
fn a_stack_pointer_on_no_stack_is_refused() {
    for sp in [0x0fff, 0x2000, 0, usize::MAX] {
        // SAFETY: nothing is read.
        assert!(unsafe { LiveStack::new(sp, &(0x1000..0x2000)) }.is_none());
    }
}
