//! What the HTTP/2 library refuses before the shim sees it: it resets the stream and says why in
//! its own log only.

/// The library's target for such lines, which are of level debug.
pub(super) const TARGET: &str = "h2::server";

/// What clients on a Unix socket have to set.
const SET_AUTHORITY: &str = "the client has to send a host name as its :authority, such as localhost \
                             (grpcurl -authority localhost; grpcio: the channel option \
                             grpc.default_authority; grpc-java: overrideAuthority)";

/// Returns what the shim logs for a line of the library's, if a request was refused.
pub(super) fn refusal(line: &str) -> Option<String> {
    let why = line.strip_prefix("malformed headers: ")?;
    let hint = if why.starts_with("malformed authority") { SET_AUTHORITY } else { "" };
    let colon = if hint.is_empty() { "" } else { ": " };
    Some(format!("refused a request of which the client sees PROTOCOL_ERROR: {why}{colon}{hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_authority_is_explained_and_other_lines_are_not_the_shims() {
        let line = "malformed headers: malformed authority (\"%2Frun\"): invalid uri character";
        let text = refusal(line).unwrap();
        assert!(text.contains("(\"%2Frun\"): invalid uri character: the client has to"), "{text}");
        assert!(text.contains("-authority localhost"), "{text}");
        let text = refusal("malformed headers: missing path").unwrap();
        assert!(text.ends_with("PROTOCOL_ERROR: missing path"), "{text}");
        assert_eq!(refusal("settings acknowledged"), None);
    }
}
