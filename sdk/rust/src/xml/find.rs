//! Follows paths.

use super::error::InvalidPath;
use super::path::{Name, Step};
use super::scope::Space;
use super::text::value_of;
use super::tree::{Id, Namespace, Tree};

/// A step whose prefixes are looked up.
pub(super) struct Test<'p> {
    /// `None` for `*`.
    pub(super) name: Option<(Name<'p>, Space)>,
    pub(super) predicates: Vec<(Key<'p>, &'p str)>,
}

/// The name of an attribute.
#[derive(Clone, Copy)]
pub(super) struct Key<'p> {
    pub(super) name: Name<'p>,
    /// `None` without a prefix.
    pub(super) namespace: Option<Namespace>,
}

impl Key<'_> {
    /// Whether two names are those of one attribute.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.namespace == other.namespace && self.name.local == other.name.local
    }
}

impl Tree {
    /// Looks up the prefixes of a step of a path that an element is asked for.
    pub(super) fn test<'p>(
        &self,
        asked: Id,
        path: &str,
        step: &Step<'p>,
    ) -> Result<Test<'p>, InvalidPath> {
        let space = |name: Name<'p>| {
            let namespace = self.looked_up(path, &name)?;
            Ok((name, namespace.map_or_else(|| self.space(asked), Space::Known)))
        };
        let key = |(name, value): &(Name<'p>, &'p str)| Ok((self.key(path, *name)?, *value));
        Ok(Test {
            name: step.name.map(space).transpose()?,
            predicates: step.predicates.iter().map(key).collect::<Result<_, _>>()?,
        })
    }

    /// Looks up the prefix of an attribute's name.
    pub(super) fn key<'p>(&self, path: &str, name: Name<'p>) -> Result<Key<'p>, InvalidPath> {
        Ok(Key { name, namespace: self.looked_up(path, &name)? })
    }

    fn matches(&self, id: Id, test: &Test<'_>) -> bool {
        let is_named = test
            .name
            .as_ref()
            .is_none_or(|(name, space)| self.local(id) == name.local && self.is_in(id, space));
        is_named
            && test.predicates.iter().all(|(key, value)| {
                self.attribute(id, key).is_some_and(|it| value_of(it.value) == *value)
            })
    }

    /// Visits what matches the steps of a path, or their beginnings, in the order of the document.
    /// The function gets an element and the number of steps that lead there, and returns whether
    /// that is enough. The depth of a document, which is limited, is that of the recursion.
    pub(super) fn follow(
        &self,
        from: Id,
        steps: &[Test<'_>],
        done: usize,
        visit: &mut impl FnMut(Id, usize) -> bool,
    ) -> bool {
        let Some(step) = steps.get(done) else { return false };
        self.children(from)
            .filter(|child| self.matches(*child, step))
            .any(|child| visit(child, done + 1) || self.follow(child, steps, done + 1, visit))
    }
}
