//! Which function of the new build is which of the base.
//!
//! Rules are tried in the order of [`MatchedBy`], from the surest to the least sure; what one has matched, the next
//! leaves alone. Each pairs functions of one kind and module one to one, and only if there is exactly one candidate on
//! either side: a function that might be one of several stays unmatched, since a wrong match shows changes that are
//! none.
//!
//! What is not in the profiles cannot be a candidate: a function with a body like that of another one, which no sample
//! saw, is not known to exist.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    sync::Arc,
};

use flamewalk_profile::FrameKind;
use serde::Serialize;

use super::{
    identity::{Identities, Identity, Name},
    stable_name::stable_name,
};

/// How a function of one build was found in the other. In the order in which the rules are tried.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MatchedBy {
    /// The names agree without what compilers number anew, and the code agrees.
    NameAndBody,
    /// The names are the same. For a function without a name: its index and its code are the same.
    Name,
    /// The names are the same without compiler hashes and suffixes.
    StableName,
    /// The code is the same.
    Body,
    /// The code is the same as that of others, but only one of them is called by the same functions.
    BodyAndCallers,
    /// The code is the same but for integers in it, which may be the addresses of functions, and the index has moved by
    /// as much as that of the matched function next to it.
    BodyAndPosition,
    /// The lines that were sampled are the same ones of a file, up to lines that were inserted before them.
    Source,
}

impl MatchedBy {
    /// A word or two for tables.
    pub fn label(self) -> &'static str {
        match self {
            Self::NameAndBody => "name, body",
            Self::Name => "name",
            Self::StableName => "stable name",
            Self::Body => "body",
            Self::BodyAndCallers => "body, callers",
            Self::BodyAndPosition => "body, position",
            Self::Source => "source",
        }
    }
}

/// Pairs of functions of the base and of the new build, by their positions.
#[derive(Debug)]
pub(super) struct Matching {
    /// For each function of the base.
    pub(super) of_base: Vec<Option<(usize, MatchedBy)>>,
    /// For each function of the new build.
    pub(super) of_new: Vec<Option<usize>>,
}

/// A function's callers, each with the weight of its calls: by their positions on the same side.
pub(super) type Callers = Vec<BTreeMap<usize, u64>>;

/// What a rule compares, with kind and module, in which all rules agree.
type Group<K> = (FrameKind, Option<Arc<str>>, K);

struct Matcher<'i> {
    base: &'i Identities,
    new: &'i Identities,
    /// The module of the base that each module of the new build is.
    modules: HashMap<Arc<str>, Arc<str>>,
    matching: Matching,
}

impl Matching {
    pub(super) fn new(base: &Identities, new: &Identities, callers: [&Callers; 2]) -> Self {
        let matching = Self { of_base: vec![None; base.len()], of_new: vec![None; new.len()] };
        let mut matcher = Matcher { base, new, modules: modules(base, new), matching };
        matcher.by(MatchedBy::NameAndBody, |function| {
            let Name::Known(name) = &function.key.name else { return None };
            let stable = stable_name(name);
            // A whole name of the source says more than a body.
            (stable != **name).then_some((stable, function.body()?))
        });
        matcher.by(MatchedBy::Name, |function| match &function.key.name {
            Name::Known(name) => Some((name.to_string(), None)),
            Name::Unnamed(index) => Some((index.to_string(), Some(function.body()?))),
        });
        matcher.by(MatchedBy::StableName, |function| match &function.key.name {
            Name::Known(name) => Some(stable_name(name)),
            Name::Unnamed(_) => None,
        });
        matcher.by(MatchedBy::Body, Identity::body);
        matcher.by_callers(callers);
        if matcher.by_position() {
            matcher.by_callers(callers);
        }
        matcher.by_source();
        matcher.matching
    }

    fn pair(&mut self, base: usize, new: usize, how: MatchedBy) {
        self.of_base[base] = Some((new, how));
        self.of_new[new] = Some(base);
    }
}

impl Matcher<'_> {
    /// Pairs the functions that are alone on their side with what `of` gives.
    fn by<K: Eq + Hash>(&mut self, how: MatchedBy, of: impl Fn(&Identity) -> Option<K>) {
        let groups = self.groups(|_, _, function| of(function));
        for sides in groups.into_values() {
            if let ([base], [new]) = (&sides[0][..], &sides[1][..]) {
                self.matching.pair(*base, *new, how);
            }
        }
    }

    /// The unmatched functions of both sides by what `of` gives for a side (0, 1) and position.
    fn groups<K: Eq + Hash>(
        &self,
        of: impl Fn(usize, usize, &Identity) -> Option<K>,
    ) -> HashMap<Group<K>, [Vec<usize>; 2]> {
        let mut groups: HashMap<_, [Vec<usize>; 2]> = HashMap::new();
        for (index, function) in self.base.iter().enumerate() {
            if self.matching.of_base[index].is_none()
                && let Some(key) = of(0, index, function)
            {
                groups.entry((function.key.kind, function.key.module.clone(), key)).or_default()[0]
                    .push(index);
            }
        }
        for (index, function) in self.new.iter().enumerate() {
            if self.matching.of_new[index].is_none()
                && let Some(key) = of(1, index, function)
            {
                let module = self.module(function);
                groups.entry((function.key.kind, module, key)).or_default()[1].push(index);
            }
        }
        groups
    }

    /// The module of a new function as the base calls it. Imports are called the same in both builds.
    fn module(&self, function: &Identity) -> Option<Arc<str>> {
        let module = function.key.module.as_ref()?;
        let renamed = self.modules.get(module).filter(|_| function.is_guest());
        Some(renamed.unwrap_or(module).clone())
    }

    /// Of functions with one body, pairs those that share a matched caller with no other one; and again, since each
    /// pair is a caller for others.
    fn by_callers(&mut self, [base_callers, new_callers]: [&Callers; 2]) {
        loop {
            let groups = self.groups(|side, index, function| {
                let callers = if side == 0 { base_callers } else { new_callers };
                // The costliest caller, as a position of the base.
                let (&caller, _) =
                    callers[index].iter().max_by_key(|&(&caller, &weight)| (weight, caller))?;
                let caller = if side == 0 {
                    self.matching.of_base[caller].map(|_| caller)?
                } else {
                    self.matching.of_new[caller]?
                };
                Some((function.body()?, caller))
            });
            let mut found = false;
            for sides in groups.into_values() {
                if let ([base], [new]) = (&sides[0][..], &sides[1][..]) {
                    self.matching.pair(*base, *new, MatchedBy::BodyAndCallers);
                    found = true;
                }
            }
            if !found {
                return;
            }
        }
    }

    /// Pairs functions with one body but for its integers, if their index has moved by as much as that of the matched
    /// function before or after them in the module. Those that have names on both sides have other ones, and so are
    /// others. Whether any were paired.
    fn by_position(&mut self) -> bool {
        let groups = self.groups(|_, _, function| function.body_but_constants());
        let mut pairs = Vec::new();
        let mut moves_of = HashMap::new();
        for ((kind, module, _), [bases, news]) in groups {
            if bases.is_empty() || news.is_empty() {
                continue;
            }
            let moves = moves_of.entry((kind, module.clone())).or_insert_with(|| self.moves(kind, module));
            let fit = |base: usize, new: usize| {
                let (base, new) = (self.base.get(base), self.new.get(new));
                let (Some(from), Some(to)) = (base.index(), new.index()) else { return false };
                let around = [moves.range(..from).next_back(), moves.range(from..).next()];
                !(base.is_named() && new.is_named())
                    && around.into_iter().flatten().any(|(_, by)| from + by == to)
            };
            for &base in &bases {
                let mut candidates = news.iter().filter(|&&new| fit(base, new));
                if let (Some(&new), None) = (candidates.next(), candidates.next())
                    && bases.iter().filter(|&&base| fit(base, new)).count() == 1
                {
                    pairs.push((base, new));
                }
            }
        }
        for &(base, new) in &pairs {
            self.matching.pair(base, new, MatchedBy::BodyAndPosition);
        }
        !pairs.is_empty()
    }

    /// By the indices of a module's matched functions how far each has moved.
    fn moves(&self, kind: FrameKind, module: Option<Arc<str>>) -> BTreeMap<i64, i64> {
        let matched = self.base.iter().zip(&self.matching.of_base);
        matched
            .filter(|(base, _)| base.key.kind == kind && base.key.module == module)
            .filter_map(|(base, matched)| {
                let from = base.index()?;
                Some((from, self.new.get((*matched)?.0).index()? - from))
            })
            .collect()
    }

    /// Pairs functions whose sampled lines overlap, after the shift of the matched function before them in the file.
    fn by_source(&mut self) {
        let files = self.groups(|_, _, function| main_file(function).map(|(file, _)| file));
        for ((kind, module, file), [bases, news]) in files {
            if bases.is_empty() || news.is_empty() {
                continue;
            }
            let shifts = self.shifts(kind, module, &file);
            let shifted: Vec<(usize, [i64; 2])> = bases
                .iter()
                .map(|&base| {
                    let [from, to] = range(self.base.get(base), &file);
                    let shift = shifts.range(..=from).next_back().or_else(|| shifts.first_key_value());
                    let shift = shift.map_or(0, |(_, shift)| *shift);
                    (base, [from + shift, to + shift])
                })
                .collect();
            let overlaps = |new: usize, [from, to]: [i64; 2]| {
                let [other_from, other_to] = range(self.new.get(new), &file);
                from <= other_to && other_from <= to
            };
            let mut pairs = Vec::new();
            for &(base, lines) in &shifted {
                let mut candidates = news.iter().filter(|&&new| overlaps(new, lines));
                if let (Some(&new), None) = (candidates.next(), candidates.next())
                    && shifted.iter().filter(|&&(_, lines)| overlaps(new, lines)).count() == 1
                {
                    pairs.push((base, new));
                }
            }
            for (base, new) in pairs {
                self.matching.pair(base, new, MatchedBy::Source);
            }
        }
    }

    /// For the hottest line of each matched function of a file how far it has moved.
    fn shifts(&self, kind: FrameKind, module: Option<Arc<str>>, file: &str) -> BTreeMap<i64, i64> {
        let mut shifts = BTreeMap::new();
        for (base, matched) in self.base.iter().zip(&self.matching.of_base) {
            if base.key.kind == kind
                && base.key.module == module
                && let Some((new, _)) = *matched
                && let (Some((of_base, from)), Some((of_new, to))) =
                    (main_file(base), main_file(self.new.get(new)))
                && *of_base == *file
                && *of_new == *file
            {
                shifts.insert(from, to - from);
            }
        }
        shifts
    }
}

/// The file and line that most of a function's weight is at.
fn main_file(function: &Identity) -> Option<(Arc<str>, i64)> {
    let (file, lines) = function
        .lines
        .iter()
        .max_by_key(|(_, lines)| lines.values().fold(0_u64, |sum, weight| sum.saturating_add(*weight)))?;
    let (&line, _) = lines.iter().max_by_key(|&(&line, &weight)| (weight, std::cmp::Reverse(line)))?;
    Some((file.clone(), line.into()))
}

/// The first and the last line of a function in a file that it is in.
fn range(function: &Identity, file: &str) -> [i64; 2] {
    let lines = &function.lines[file];
    [lines.keys().next(), lines.keys().next_back()].map(|line| line.copied().unwrap_or_default().into())
}

/// Modules of the new build by their name in the base: the same, or the only ones that are left on either side.
fn modules(base: &Identities, new: &Identities) -> HashMap<Arc<str>, Arc<str>> {
    let of = |identities: &Identities| {
        let guests = identities.iter().filter(|function| function.is_guest());
        let mut modules: Vec<Arc<str>> = guests.filter_map(|function| function.key.module.clone()).collect();
        modules.sort_unstable();
        modules.dedup();
        modules
    };
    let (base, new) = (of(base), of(new));
    let only = |modules: &[Arc<str>], others: &[Arc<str>]| match modules
        .iter()
        .filter(|module| !others.contains(module))
        .collect::<Vec<_>>()[..]
    {
        [module] => Some(module.clone()),
        _ => None,
    };
    match (only(&base, &new), only(&new, &base)) {
        (Some(base), Some(new)) => HashMap::from([(new, base)]),
        _ => HashMap::new(),
    }
}
