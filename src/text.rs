//! Cuts texts to a maximum length.

/// The mark for lines that were left out.
const GAP: &str = "[…]";

/// Returns the longest prefix of `text` that has at most `bytes` bytes and ends between two
/// characters.
#[must_use]
pub fn clip(text: &str, bytes: usize) -> &str {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Leaves out lines in the middle until the text is at most `limit` long by `measure`. The first
/// line says what happened; the last ones contain the message of a stack trace. `measure` must be
/// additive: the length of a text is the sum of the lengths of its parts.
#[must_use]
pub fn fit(text: &str, limit: usize, measure: impl Fn(&str) -> usize) -> String {
    if measure(text) <= limit {
        return text.to_owned();
    }
    let mut lines = text.lines();
    let head = cut(lines.next().unwrap_or_default(), limit / 2, &measure);
    let mut remaining = limit.saturating_sub(measure(head) + measure("\n") + measure(GAP));
    let mut tail = Vec::new();
    for line in lines.rev() {
        let Some(room) = remaining.checked_sub(measure("\n")).filter(|room| *room > 0) else {
            break;
        };
        let kept = cut(line, room, &measure);
        remaining = room - measure(kept);
        tail.push(kept);
        if kept.len() < line.len() {
            break;
        }
    }
    let tail: String = tail.iter().rev().flat_map(|line| ["\n", line]).collect();
    format!("{head}\n{GAP}{tail}")
}

/// Returns the longest prefix of `text` that is at most `room` long by `measure`.
fn cut(text: &str, room: usize, measure: impl Fn(&str) -> usize) -> &str {
    let mut used = 0;
    let end = text.char_indices().find(|(_, c)| {
        used += measure(c.encode_utf8(&mut [0; 4]));
        used > room
    });
    end.map_or(text, |(at, _)| &text[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_between_characters() {
        for (bytes, expected) in [(0, ""), (1, "a"), (2, "a"), (3, "aé"), (4, "aéb"), (9, "aéb")]
        {
            assert_eq!(clip("aéb", bytes), expected);
        }
    }

    /// By bytes, and with three for each byte.
    const MEASURES: [fn(&str) -> usize; 2] = [str::len, |text| 3 * text.len()];

    #[test]
    fn short_texts_stay_as_they_are() {
        let text = "hook x failed:\nline 1\nline 2";
        assert_eq!(fit(text, text.len(), str::len), text);
    }

    #[test]
    fn long_texts_keep_their_first_and_their_last_lines() {
        let lines: Vec<String> = (0..400).map(|n| format!("line {n} of a stack trace")).collect();
        let text = format!("hook x failed:\n{}", lines.join("\n"));
        for measure in MEASURES {
            let fitted = fit(&text, 4096, measure);
            assert!((4096 * 9 / 10..=4096).contains(&measure(&fitted)));
            assert!(fitted.starts_with("hook x failed:\n[…]\n"), "{fitted}");
            assert!(fitted.ends_with("line 398 of a stack trace\nline 399 of a stack trace"));
        }
    }

    #[test]
    fn one_endless_line_is_cut_between_characters() {
        for text in ["é".repeat(10_000), format!("head\n{}", "é".repeat(10_000))] {
            for measure in MEASURES {
                let fitted = fit(&text, 4096, measure);
                assert!((4096 / 3..=4096).contains(&measure(&fitted)), "{}", fitted.len());
            }
        }
    }
}
