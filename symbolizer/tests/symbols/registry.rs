//! What was where, when: the registry against a list of everything that ever happened.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};

use flamewalk_symbolizer::registry::{CodeRegistry, ImageId, RegisterError, SampleReader};
use flamewalk_symbolizer::{CodeAddress, CodeImage, Symbolizer};
use proptest::prelude::*;

use crate::support::{compile, engine, parse};

fn small_image(function: &str) -> Arc<CodeImage> {
    let text = format!("(module $own (func ${function} (export \"f\") (result i32) i32.const 1))");
    Arc::new(parse(&compile(&engine(|_| {}), &wat::parse_str(text).unwrap())))
}

fn register(registry: &CodeRegistry, image: &Arc<CodeImage>, at: usize) -> Result<ImageId, RegisterError> {
    let symbolizer = Symbolizer::new(Arc::clone(image), "guest", None, None).unwrap();
    registry.register(at, image, symbolizer)
}

/// An image that was registered, as the list has it.
struct Known {
    id: ImageId,
    start: usize,
    first_generation: u64,
    end_generation: Option<u64>,
    /// The readers that have not let go of it since.
    holders: BTreeSet<usize>,
}

impl Known {
    fn is_kept(&self) -> bool {
        self.end_generation.is_none() || !self.holders.is_empty()
    }

    fn is_there(&self, generation: u64) -> bool {
        self.first_generation <= generation && self.end_generation.is_none_or(|end| generation < end)
    }
}

#[derive(Clone, Debug)]
enum Action {
    Register { at: usize },
    Retire { which: usize },
    NewReader,
    DropReader { which: usize },
    Release { which: usize },
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => (0usize..40).prop_map(|at| Action::Register { at }),
        4 => (0usize..8).prop_map(|which| Action::Retire { which }),
        1 => Just(Action::NewReader),
        1 => (0usize..4).prop_map(|which| Action::DropReader { which }),
        2 => (0usize..4).prop_map(|which| Action::Release { which }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn addresses_resolve_to_what_was_there(actions in prop::collection::vec(action(), 1..60)) {
        let image = small_image("f");
        let length = image.text().len();
        // Texts begin at places that are closer to each other than they are long.
        let step = length / 3;
        let registry = Arc::new(CodeRegistry::default());
        let mut list: Vec<Known> = Vec::new();
        let mut readers: Vec<(usize, SampleReader)> = Vec::new();
        let (mut generation, mut reader_count) = (0, 0);
        for action in actions {
            match action {
                Action::Register { at } => {
                    let start = 0x10_000 + at * step;
                    let overlaps = |known: &Known| {
                        known.end_generation.is_none() && known.start.abs_diff(start) < length
                    };
                    let result = register(&registry, &image, start);
                    prop_assert_eq!(result.is_err(), list.iter().any(overlaps));
                    if let Ok(id) = result {
                        generation += 1;
                        list.push(Known {
                            id,
                            start,
                            first_generation: generation,
                            end_generation: None,
                            holders: BTreeSet::new(),
                        });
                    }
                }
                Action::Retire { which } => {
                    let mut live = list.iter_mut().filter(|known| known.end_generation.is_none());
                    let Some(known) = live.nth(which) else { continue };
                    registry.retire(known.id);
                    // Twice is once.
                    registry.retire(known.id);
                    generation += 1;
                    known.end_generation = Some(generation);
                    known.holders = readers.iter().map(|(number, _)| *number).collect();
                }
                Action::NewReader => {
                    readers.push((reader_count, SampleReader::new(Arc::clone(&registry))));
                    reader_count += 1;
                }
                Action::DropReader { which } => {
                    if which < readers.len() {
                        let (number, reader) = readers.remove(which);
                        drop(reader);
                        list.iter_mut().for_each(|known| _ = known.holders.remove(&number));
                    }
                }
                Action::Release { which } => {
                    if let Some((number, reader)) = readers.get(which) {
                        let mut waiting: Vec<ImageId> =
                            list.iter().filter(|known| known.holders.contains(number)).map(|known| known.id).collect();
                        waiting.sort();
                        prop_assert_eq!(reader.retired(), waiting.clone());
                        waiting.truncate(2);
                        reader.release(&waiting);
                        for known in list.iter_mut().filter(|known| waiting.contains(&known.id)) {
                            known.holders.remove(number);
                        }
                    }
                }
            }
            prop_assert_eq!(registry.image_count(), list.iter().filter(|known| known.is_kept()).count());
        }
        let locator = registry.locator();
        for generation in 0..=generation {
            for address in (0x10_000 - step..0x10_000 + 45 * step).step_by(step / 2) {
                let expected = list.iter().find(|known| {
                    known.is_kept() && known.is_there(generation) && (known.start..known.start + length).contains(&address)
                });
                let expected = expected.map(|known| (known.id, (address - known.start) as u32));
                prop_assert_eq!(locator.locate(address, generation), expected);
            }
        }
    }
}

/// The image itself goes, not only its entry.
#[test]
fn what_nobody_holds_is_freed() {
    let registry = Arc::new(CodeRegistry::default());
    let load = |at| {
        let image = small_image("f");
        let id = register(&registry, &image, at).unwrap();
        (id, Arc::downgrade(&image))
    };
    let is_freed = |image: &Weak<CodeImage>| image.upgrade().is_none();

    let (id, image) = load(0x1000);
    assert!(!is_freed(&image));
    registry.retire(id);
    assert!(is_freed(&image), "no reader could ask for it");

    let readers = [SampleReader::new(Arc::clone(&registry)), SampleReader::new(Arc::clone(&registry))];
    let (id, image) = load(0x1000);
    let name = |id| {
        registry.with_symbolizer(id, |symbolizer| {
            symbolizer.frames(CodeAddress::Instruction(0))[0].name.to_string()
        })
    };
    registry.retire(id);
    assert_eq!(name(id).as_deref(), Some("f"));
    readers[0].release(&[id]);
    readers[0].release(&[id]);
    assert_eq!(name(id).as_deref(), Some("f"), "the other one may ask for it");
    readers[1].release(&[id]);
    assert!(is_freed(&image));
    assert_eq!(name(id), None);
    assert_eq!(registry.image_count(), 0);
}

/// Code without a name is known by its own, or by the makeshift one; what is told later counts.
#[test]
fn an_unknown_guest_is_known_by_its_own_name() {
    let shown = |image: Arc<CodeImage>, makeshift: &str| {
        let mut symbolizer = Symbolizer::of_unknown(image, makeshift);
        let own = symbolizer.frames(CodeAddress::Instruction(0))[0].module.to_string();
        symbolizer.describe("told", None, None).unwrap();
        (own, symbolizer.frames(CodeAddress::Instruction(0))[0].module.to_string())
    };
    assert_eq!(shown(small_image("f"), "guest 7"), ("own".into(), "told".into()));
    let nameless = wat::parse_str("(module (func (export \"f\")))").unwrap();
    let nameless = Arc::new(parse(&compile(&engine(|_| {}), &nameless)));
    assert_eq!(shown(nameless, "guest 7"), ("guest 7".into(), "told".into()));
}
