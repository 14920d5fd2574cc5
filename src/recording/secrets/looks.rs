//! What is secret by its name, and what by its looks.

use memchr::memmem;

/// Parts of names whose values are secret, without case and punctuation.
pub(super) const SECRET_NAMES: [&str; 19] = [
    // Of volumes, of annotations, and of `CloudInitData`.
    "userdata",
    "networkdata",
    "cloudinit",
    "ignition",
    "sysprep",
    "unattend",
    "lastappliedconfiguration",
    // The command line of a kernel that is booted directly.
    "kernelargs",
    "cmdline",
    // Of confidential VMs.
    "dhcert",
    "session",
    // Of anything.
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "credential",
    "cookie",
    "authorization",
];

/// Names of secrets that are too short to be searched for in longer words.
pub(super) const SECRET_WORDS: [&str; 4] = ["pass", "pwd", "psk", "auth"];

/// Ends of names with such a part whose values are names or times.
const HARMLESS_ENDS: [&str; 6] =
    ["secretname", "secretref", "secretkeyref", "imagepullsecret", "passwdvalidto", "topologykey"];

/// The beginnings of user data, as cloud-init and Ignition tell its kinds apart.
const USER_DATA: [&str; 9] = [
    "#cloud-config",
    "#cloud-boothook",
    "#include",
    "#part-handler",
    "#upstart-job",
    "## template:",
    "#!",
    "Content-Type: multipart/",
    "MIME-Version:",
];

/// Texts that are in keys, and in a Windows answer file, in lower case.
const MARKS: [&str; 11] = [
    "-----begin ",
    "private key-----",
    "age-secret-key-",
    "ssh-rsa",
    "ssh-ed25519",
    "ssh-dss",
    "ecdsa-sha2-",
    "sk-ssh-",
    "sk-ecdsa-",
    "bearer ",
    "urn:schemas-microsoft-com:unattend",
];

/// What may stand between a name in a text and the sign that gives it a value.
const QUOTES: [char; 4] = ['"', '\'', '\\', ' '];

/// Returns a name without case and punctuation.
pub(super) fn plain(name: &str) -> String {
    let folded = name.chars().flat_map(char::to_lowercase);
    // Go's decoder takes this letter for an s.
    folded.map(|c| if c == '\u{17f}' { 's' } else { c }).filter(|c| c.is_alphanumeric()).collect()
}

/// Whether the values of this name are secret.
pub(super) fn is_secret_name(name: &str) -> bool {
    let plain = plain(name);
    (SECRET_NAMES.iter().any(|part| plain.contains(part)) || has_secret_word(name, &plain))
        && !is_harmless_name(name)
}

/// Whether a name with a secret's is that of a reference: what is below it is not secret.
pub(super) fn is_harmless_name(name: &str) -> bool {
    let plain = plain(name);
    let plain = plain.strip_suffix('s').unwrap_or(&plain);
    HARMLESS_ENDS.iter().any(|end| plain.ends_with(end))
}

/// Whether a name has a secret's as one of its words, which punctuation or case separates. A key is
/// secret if a word says what it is for: `access-key`, `luksKeys`.
fn has_secret_word(name: &str, plain: &str) -> bool {
    let singular = plain.strip_suffix('s').unwrap_or(plain);
    if singular.strip_suffix("key").is_some_and(|before| !before.is_empty()) {
        return true;
    }
    let mut words = vec![String::new()];
    let mut was_lower = false;
    for c in name.chars() {
        if !c.is_alphanumeric() || (was_lower && c.is_uppercase()) {
            words.push(String::new());
        }
        was_lower = c.is_lowercase();
        if let Some(word) = words.last_mut().filter(|_| c.is_alphanumeric()) {
            word.extend(c.to_lowercase());
        }
    }
    words.iter().any(|word| SECRET_WORDS.contains(&&**word))
}

/// Whether a value is secret wherever it stands.
pub(super) fn looks_secret(value: &str) -> bool {
    // Windows's editors write the mark of an encoding first.
    let begins = value.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    let folded = value.to_lowercase();
    USER_DATA.iter().any(|beginning| begins.starts_with(beginning))
        || (begins.starts_with('{') && value.contains("\"ignition\""))
        || MARKS.iter().any(|mark| memmem::find(folded.as_bytes(), mark.as_bytes()).is_some())
        || value.contains("\n#cloud-config")
        || has_assignment(value)
        || has_login(value)
        || (begins.starts_with(['{', '[']) && super::json::has_secret(begins))
}

/// Whether a line is the first one of a secret that has several.
pub(super) fn begins_secret(line: &str) -> bool {
    line.contains("-----BEGIN ") || USER_DATA.iter().any(|beginning| line.starts_with(beginning))
}

/// Whether an argument is an option whose value follows, and is secret: `--db-password`.
pub(super) fn is_secret_option(argument: &str) -> bool {
    argument.starts_with('-') && !argument.contains('=') && is_secret_name(argument)
}

/// Whether a name of a secret is followed by one: `AWS_SECRET_ACCESS_KEY=…`, `"tokens": […`,
/// `--password …`.
fn has_assignment(value: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    let mut rest = value;
    while let Some(start) = rest.find(is_part) {
        let at = &rest[start..];
        let (name, after) = at.split_at(at.find(|c| !is_part(c)).unwrap_or(at.len()));
        rest = after;
        let value = after.trim_start_matches(|c: char| c.is_whitespace() || QUOTES.contains(&c));
        let is_assigned = value.starts_with([':', '=']);
        let is_option = name.starts_with('-') && !value.is_empty() && value.len() < after.len();
        if (is_assigned || is_option) && is_secret_name(name) {
            return true;
        }
    }
    false
}

/// Whether there is a URL with a password: `https://user:password@host`.
fn has_login(value: &str) -> bool {
    memmem::find_iter(value.as_bytes(), b"://").any(|at| {
        let authority = value[at + 3..].split(['/', '?', '#', ' ', '"']).next().unwrap_or_default();
        authority.split_once('@').is_some_and(|(login, _)| login.contains(':'))
    })
}
