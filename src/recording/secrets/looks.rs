//! What is secret by its name, and what by its looks.

use memchr::memmem;

/// Parts of names whose values are secret, without case and punctuation.
pub(super) const SECRET_NAMES: [&str; 23] = [
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
    "privatekey",
    "publickey",
    "apikey",
    "sshkey",
    "authorizedkey",
    "cookie",
];

/// Names with such a part whose values are names or times.
const HARMLESS_NAMES: [&str; 3] = ["secretname", "imagepullsecret", "passwdvalidto"];

/// Words before a secret in a text: `password=…`, `"token": "…"`, `--token …`.
const SECRET_WORDS: [&str; 11] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "credential",
    "private_key",
    "private-key",
    "api_key",
    "apikey",
    "authorization",
];

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

/// Texts that are in keys, and in a Windows answer file.
const MARKS: [&str; 9] = [
    "PRIVATE KEY-----",
    "ssh-rsa ",
    "ssh-ed25519 ",
    "ssh-dss ",
    "ecdsa-sha2-",
    "sk-ssh-",
    "sk-ecdsa-",
    "-----BEGIN CERTIFICATE",
    "urn:schemas-microsoft-com:unattend",
];

/// Returns a name without case and punctuation.
pub(super) fn plain(name: &str) -> String {
    let folded = name.chars().flat_map(char::to_lowercase);
    // Go's decoder takes this letter for an s.
    folded.map(|c| if c == '\u{17f}' { 's' } else { c }).filter(|c| c.is_alphanumeric()).collect()
}

/// Whether the values of this name are secret. The name is a plain one.
pub(super) fn is_secret_name(name: &str) -> bool {
    SECRET_NAMES.iter().any(|part| name.contains(part)) && !HARMLESS_NAMES.contains(&name)
}

/// Whether a value is secret wherever it stands.
pub(super) fn looks_secret(value: &str) -> bool {
    let begins = value.trim_start();
    USER_DATA.iter().any(|beginning| begins.starts_with(beginning))
        || (begins.starts_with('{') && value.contains("\"ignition\""))
        || MARKS.iter().any(|mark| memmem::find(value.as_bytes(), mark.as_bytes()).is_some())
        || has_assignment(value)
        || has_login(value)
}

/// Whether a line is the first one of a secret that has several.
pub(super) fn begins_secret(line: &str) -> bool {
    line.contains("-----BEGIN ") || USER_DATA.iter().any(|beginning| line.starts_with(beginning))
}

/// Whether a word for a secret is followed by one.
fn has_assignment(value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    SECRET_WORDS.iter().any(|word| {
        memmem::find_iter(value.as_bytes(), word.as_bytes()).any(|at| {
            let is_option = value[..at].ends_with('-');
            let rest = value[at + word.len()..].trim_start_matches([' ', '"', '\'', '\\']);
            let is_apart = value[at + word.len()..].starts_with([' ', '"', '\'', '\\']);
            rest.starts_with([':', '=']) || (is_option && is_apart && !rest.is_empty())
        })
    })
}

/// Whether there is a URL with a password: `https://user:password@host`.
fn has_login(value: &str) -> bool {
    memmem::find_iter(value.as_bytes(), b"://").any(|at| {
        let authority = value[at + 3..].split(['/', '?', '#', ' ', '"']).next().unwrap_or_default();
        authority.split_once('@').is_some_and(|(login, _)| login.contains(':'))
    })
}
