//! The changes between two domains.

use std::collections::{HashMap, VecDeque};

use super::tree::Node;
use super::{ChangeKind, Changes, Detail};

/// Attributes by which people know an element, the best one first.
const NAMES: [&str; 6] = ["name", "dev", "alias", "id", "value", "type"];

/// Compares two domains. `None` if one of them is not well-formed.
pub(super) fn changes(old: &str, new: &str, detail: Detail) -> Option<Changes> {
    let (old, new) = (Node::parse(old)?, Node::parse(new)?);
    let mut changes = Changes::default();
    let path = format!("/{}", new.name);
    Comparison { changes: &mut changes, detail }.compare(&old, &new, &path);
    Some(changes)
}

struct Comparison<'a> {
    changes: &'a mut Changes,
    detail: Detail,
}

impl Comparison<'_> {
    /// Compares two elements that stand for each other. The new one is at `path`. (Elements are
    /// nested less than 256 deep, and so are these calls.)
    fn compare(&mut self, old: &Node<'_>, new: &Node<'_>, path: &str) {
        if old.hash == new.hash {
            return;
        }
        if old.name != new.name {
            self.push(ChangeKind::Altered, path, [None, None]);
            return;
        }
        for (name, value) in &new.attributes {
            match old.get(name) {
                Some(before) if before == value => {}
                before => {
                    let kind = before.map_or(ChangeKind::Added, |_| ChangeKind::Altered);
                    self.push(kind, &format!("{path}/@{name}"), [before, Some(value)]);
                }
            }
        }
        for (name, value) in &old.attributes {
            if new.get(name).is_none() {
                let path = format!("{path}/@{name}");
                self.push(ChangeKind::Removed, &path, [Some(value), None]);
            }
        }
        if old.text != new.text {
            self.push(ChangeKind::Altered, path, [Some(&old.text), Some(&new.text)]);
        }
        self.compare_children(old, new, path);
    }

    fn compare_children(&mut self, old: &Node<'_>, new: &Node<'_>, path: &str) {
        let (paired, removed) = pair(&old.children, &new.children);
        let (new_places, old_places) = (Places::of(&new.children), Places::of(&old.children));
        for (index, (child, partner)) in new.children.iter().zip(paired).enumerate() {
            let path = || format!("{path}/{}", step(child, new_places.0[index], self.detail));
            match partner {
                Some(partner) if old.children[partner].hash == child.hash => {}
                Some(partner) => {
                    let path = path();
                    self.compare(&old.children[partner], child, &path);
                }
                None => {
                    let text = (!child.text.is_empty()).then_some(child.text.as_str());
                    let path = path();
                    self.push(ChangeKind::Added, &path, [None, text]);
                }
            }
        }
        for index in removed {
            let child = &old.children[index];
            let path = format!("{path}/{}", step(child, old_places.0[index], self.detail));
            let text = (!child.text.is_empty()).then_some(child.text.as_str());
            self.push(ChangeKind::Removed, &path, [text, None]);
        }
    }

    fn push(&mut self, kind: ChangeKind, path: &str, values: [Option<&str>; 2]) {
        self.changes.push(kind, path, (self.detail == Detail::Values).then_some(values));
    }
}

/// Returns the old partner of each new element, and the old elements that have none.
fn pair(old: &[Node<'_>], new: &[Node<'_>]) -> (Vec<Option<usize>>, Vec<usize>) {
    let same = |(old, new): &(&Node<'_>, &Node<'_>)| old.hash == new.hash;
    let head = old.iter().zip(new).take_while(same).count();
    let tail = old[head..].iter().rev().zip(new[head..].iter().rev()).take_while(same).count();
    let mut paired: Vec<Option<usize>> = vec![None; new.len()];
    let mut is_free = vec![true; old.len()];
    let mut join = |paired: &mut Vec<_>, old: usize, new: usize| {
        paired[new] = Some(old);
        is_free[old] = false;
    };
    for index in 0..head {
        join(&mut paired, index, index);
    }
    for index in 1..=tail {
        join(&mut paired, old.len() - index, new.len() - index);
    }
    let middle = head..old.len() - tail;
    let mut by_hash: HashMap<u64, VecDeque<usize>> = HashMap::new();
    for index in middle.clone() {
        by_hash.entry(old[index].hash).or_default().push_back(index);
    }
    let others = new.iter().enumerate().skip(head).take(new.len() - tail - head);
    for (index, child) in others.clone() {
        if let Some(partner) = by_hash.get_mut(&child.hash).and_then(VecDeque::pop_front) {
            join(&mut paired, partner, index);
        }
    }
    let mut by_name: HashMap<&str, VecDeque<usize>> = HashMap::new();
    for index in middle.filter(|&index| is_free[index]) {
        by_name.entry(old[index].name).or_default().push_back(index);
    }
    for (index, child) in others {
        if paired[index].is_none()
            && let Some(partner) = by_name.get_mut(child.name).and_then(VecDeque::pop_front)
        {
            paired[index] = Some(partner);
        }
    }
    let mut removed: Vec<usize> = by_name.into_values().flatten().collect();
    removed.sort_unstable();
    (paired, removed)
}

/// The position of each element among those of its name, from 1, if there are several.
struct Places(Vec<Option<usize>>);

impl Places {
    fn of(nodes: &[Node<'_>]) -> Self {
        let mut counts: HashMap<&str, usize> = HashMap::new();
        let places: Vec<_> = nodes
            .iter()
            .map(|node| {
                let count = counts.entry(node.name).or_default();
                *count += 1;
                *count
            })
            .collect();
        let several = |node: &Node<'_>| counts[node.name] > 1;
        Self(nodes.iter().zip(places).map(|(node, at)| several(node).then_some(at)).collect())
    }
}

/// Returns a step of a path.
fn step(node: &Node<'_>, place: Option<usize>, detail: Detail) -> String {
    let name = node.name;
    if detail == Detail::Values {
        let by_name = NAMES.iter().find_map(|&attribute| Some((attribute, node.get(attribute)?)));
        let first = node.attributes.first().map(|(attribute, value)| (*attribute, &**value));
        if let Some((attribute, value)) = by_name.or(first) {
            let quote = if value.contains('\'') { '"' } else { '\'' };
            return format!("{name}[@{attribute}={quote}{value}{quote}]");
        }
    }
    place.map_or_else(|| name.to_owned(), |place| format!("{name}[{place}]"))
}
