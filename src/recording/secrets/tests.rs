use proptest::prelude::*;

use super::*;
use crate::hook::{Checks, HookCall};

const SECRET: &str = "s3cr3t-value";

/// A document without its secrets.
fn shown(format: Format, document: &str) -> String {
    let mut secrets = Secrets::default();
    secrets.collect(format, document).unwrap();
    secrets.replace(format, document)
}

fn json(document: &str) -> String {
    shown(Format::Json, document)
}

fn xml(document: &str) -> String {
    shown(Format::Xml, document)
}

/// Asserts that the shim's check of domains accepts one.
#[track_caller]
fn assert_well_formed(domain: &str) {
    let (vmi, domain) = (bytes::Bytes::from_static(b"{}"), bytes::Bytes::from(domain.to_owned()));
    let call = HookCall::on_define_domain(&vmi, "domain", domain.clone()).unwrap();
    call.check(domain.clone(), Checks::WellFormed)
        .unwrap_or_else(|fault| panic!("{fault}: {domain:?}"));
}

#[test]
fn every_place_of_a_vmi_that_can_hold_a_secret_is_replaced() {
    for place in [
        r#"{"metadata":{"annotations":{"kubevirt.io/ignitiondata":"§"}}}"#,
        r#"{"metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"§"}}}"#,
        r#"{"metadata":{"annotations":{"example.com/cloud-init":"§"}}}"#,
        r#"{"metadata":{"annotations":{"example.com/user-data":"§"}}}"#,
        r#"{"metadata":{"annotations":{"example.com/db_Password":"§"}}}"#,
        r#"{"metadata":{"annotations":{"example.com/api-key":"§"}}}"#,
        r#"{"metadata":{"annotations":{"example.com/notes":"the password: §"}}}"#,
        r#"{"metadata":{"annotations":{"hooks":"[{\"args\": [\"--token\", \"§\"]}]"}}}"#,
        r#"{"metadata":{"annotations":{"a":"{\"a\": {\"clientSecret\": \"§\"}}"}}}"#,
        r#"{"metadata":{"annotations":{"a":" #cloud-config\n§"}}}"#,
        r##"{"metadata":{"annotations":{"a":"#!/bin/sh\necho §"}}}"##,
        r#"{"metadata":{"annotations":{"a":"{ \"ignition\": \"§\"}"}}}"#,
        r#"{"metadata":{"annotations":{"a":"-----BEGIN OPENSSH PRIVATE KEY-----\n§"}}}"#,
        r#"{"metadata":{"annotations":{"a":"ssh-ed25519 § me"}}}"#,
        r#"{"metadata":{"annotations":{"a":"https://me:§@example.com/"}}}"#,
        r#"{"metadata":{"labels":{"token":"§"}}}"#,
        r#"{"spec":{"volumes":[{"name":"v","cloudInitNoCloud":{"userData":"§"}}]}}"#,
        r#"{"spec":{"volumes":[{"cloudInitNoCloud":{"userDataBase64":"§"}}]}}"#,
        r#"{"spec":{"volumes":[{"cloudInitNoCloud":{"networkData":"§"}}]}}"#,
        r#"{"spec":{"volumes":[{"cloudInitConfigDrive":{"networkDataBase64":"§"}}]}}"#,
        r#"{"spec":{"volumes":[{"sysprep":{"secret":{"name":"§"}}}]}}"#,
        r#"{"spec":{"volumes":[{"sysprep":{"answerFile":"§"}}]}}"#,
        r#"{"spec":{"accessCredentials":[{"userPassword":{"source":{"secret":{"secretName":"§"}}}}]}}"#,
        r#"{"spec":{"accessCredentials":[{"sshPublicKey":{"propagationMethod":{"a":{"users":["§"]}}}}]}}"#,
        r#"{"spec":{"domain":{"firmware":{"kernelBoot":{"kernelArgs":"§"}}}}}"#,
        r#"{"spec":{"domain":{"launchSecurity":{"sev":{"session":"§","dhCert":"§"}}}}}"#,
        r#"{"spec":{"domain":{"devices":{"interfaces":[{"dhcpOptions":{"privateOptions":[{"option":224,"value":"§"}]}}]}}}}"#,
        r#"{"a":{"kapp.k14s.io/original":"{\"spec\":{\"a\":[{\"userData\":\"§\"}]}}"}}"#,
        r#"{"a":" [\"{\\\"userData\\\": \\\"§\\\"}\"]"}"#,
        r#"{"a":"AWS_SECRET_ACCESS_KEY=§"}"#,
        r#"{"a":"secret_key: §"}"#,
        r#"{"a":"password1=§"}"#,
        r#"{"a":"export token_value=§"}"#,
        r#"{"a":"password\t:§"}"#,
        r#"{"a":"password\n: §"}"#,
        r#"{"a":"PASSWORDS:\n- §"}"#,
        r#"{"a":"tokens: [§]"}"#,
        r#"{"a":"{'userData': '§'}"}"#,
        r#"{"a":"mysqladmin --mysql-Password § ping"}"#,
        r#"{"a":"mysqladmin --db-password=§"}"#,
        r#"{"httpHeaders":[{"name":"Authorization","value":"Basic §"}]}"#,
        r#"{"httpHeaders":[{"value":["§"], "name":"X-Auth-Token"}]}"#,
        r#"{"env":[{"name":"a","value":"b"},{"name":"DB_PASSWORD","value":"§"}]}"#,
        r#"{"exec":{"command":["mysqladmin","--password","§"]}}"#,
        r#"{"exec":{"command":["mysqladmin","--admin-PASSWORD", "§"]}}"#,
        r#"{"secret":{"value":"§"}}"#,
        r#"{"credentials":{"user":"§","more":[{"value":"§"}]}}"#,
        r#"{"secretRef":{"a":1},"token":{"name":"§"}}"#,
        r#"{"example.com/encryption-key":"§"}"#,
        r#"{"accessKey":"§"}"#,
        r#"{"luks_keys":"§"}"#,
        r#"{"licenseKey":"§"}"#,
        r#"{"example.com/wifi-psk":"§"}"#,
        r#"{"example.com/auth":"§"}"#,
        r#"{"rootPwd":"§"}"#,
        r#"{"example.com/pass":"§"}"#,
        r#"{"a":"\ufeff#cloud-config\n§"}"#,
        r#"{"a":"it is\n#cloud-config\n§"}"#,
        r#"{"a":"ssh-rsa\t§"}"#,
        r#"{"a":"-----BEGIN PGP MESSAGE-----\n§"}"#,
        r#"{"a":"bearer §"}"#,
        r#"{"unknown":{"password":"§"}}"#,
        r#"{"unknown":{"passwords":["§",["§"]]}}"#,
    ] {
        let document = place.replace('§', SECRET);
        let shown = json(&document);
        assert!(!shown.contains(SECRET), "{place} gives {shown}");
        serde_json::from_str::<serde_json::Value>(&shown).unwrap();
    }
}

#[test]
fn every_place_of_cloud_init_data_that_can_hold_a_secret_is_replaced() {
    for place in [
        r#"{"UserData":"§"}"#,
        r#"{"userdata":"§"}"#,
        "{\"U\u{17f}erData\":\"§\"}",
        "{\"Networ\u{212a}Data\":\"§\"}",
        r#"{"NetworkData":"§"}"#,
        r#"{"NoCloudMetaData":{"public-keys":{"0":"§"}}}"#,
        r#"{"ConfigDriveMetaData":{"public_keys":{"§":"§","me":"§"}}}"#,
        r#"{"UserData":"\u0053"}"#,
        r#"{"Unknown":{"admin_pass\u0077ord":"§"}}"#,
    ] {
        let document = place.replace("\\u0053", "s3cr3t\\u002dvalue").replace('§', SECRET);
        let shown = json(&document);
        assert!(!shown.contains("s3cr3t"), "{place} gives {shown}");
    }
}

#[test]
fn every_place_of_a_domain_that_can_hold_a_secret_is_replaced() {
    for place in [
        "<graphics type='vnc' passwd='§' passwdValidTo='2026-01-01T00:00:00'/>",
        "<graphics type=\"spice\" passwd = \"§\"><listen type='none'/></graphics>",
        "<auth username='me'><secret type='iscsi' usage='§'/></auth>",
        "<encryption format='luks'><secret type='passphrase' uuid='§'/></encryption>",
        "<encryption format='luks'><secret type='passphrase'>§</secret></encryption>",
        "<tpm><backend type='emulator'><encryption secret='§'/></backend></tpm>",
        "<source protocol='https' name='a' query='token&#61;§'><cookies><cookie name='a'>§</cookie></cookies></source>",
        "<launchSecurity type='sev'><dhCert>§</dhCert><session>§</session></launchSecurity>",
        "<os><cmdline>root=/dev/vda §</cmdline><initarg>§</initarg></os>",
        "<sysinfo type='smbios'><oemStrings><entry>io.systemd.credential:a=§</entry></oemStrings></sysinfo>",
        "<sysinfo type='fwcfg'><entry name='opt/com.coreos/config'>§</entry></sysinfo>",
        "<q:commandline xmlns:q='u'><q:arg value='-object'/><q:arg value='secret,id=a,data=§'/></q:commandline>",
        "<commandline><arg value='-fw_cfg'/><arg value='name=opt/a,string=§'/></commandline>",
        "<commandline><env name='VAULT_TOKEN' value='§'/></commandline>",
        "<commandline><env value='§' name = 'DB_PASSWORD'/></commandline>",
        "<metadata><a:auth xmlns:a='u' a:apiKey='§'><a:password>§</a:password></a:auth></metadata>",
        "<q:commandline xmlns:q='u'><q:arg value='-append'/><q:arg value='a=§'/></q:commandline>",
        "<commandline><arg value='-smbios'/><arg value='type=11,value=§'/></commandline>",
        "<commandline><arg value='SECRET,data=§'/></commandline>",
        "<commandline><arg value='--admin-token'/>\n<arg value='§'/></commandline>",
        "<metadata><k:password xmlns:k='u'><k:value k:a='§'>§<b>§</b></k:value></k:password></metadata>",
        "<metadata><k:e xmlns:k='u' name='password'>§</k:e></metadata>",
        "<metadata><e key='db-token'><value a='§'>§</value></e></metadata>",
        "<description>{\"a\": [{\"name\": \"psk\", \"value\": \"§\"}]}</description>",
        "<password>a<!-- b -->§<![CDATA[§]]></password>",
        "<description>password: §</description>",
        "<description><![CDATA[password: §]]></description>",
        "<description>ssh-rsa §</description>",
        "<!-- password=§ --><name>vm</name>",
        "<?a password=§?><?b?><?c  d ?>",
    ] {
        let document = format!("<domain>{}</domain>", place.replace('§', SECRET));
        assert_well_formed(&document);
        let shown = xml(&document);
        assert!(!shown.contains("s3cr3t"), "{place} gives {shown}");
        assert_well_formed(&shown);
    }
}

#[test]
fn everything_else_stays_byte_for_byte() {
    let page = include_str!("../../../tests/fixtures/domains/libvirt.xml");
    // It gives the guest a text, which may be a secret.
    let page = page.replace(",string=", ",file=");
    for document in [
        page.as_str(),
        "<domain  a = \"&lt;&#10;'\" >\n\t<!-- a - b --><![CDATA[<a>&amp;]]>&amp;&#x41;<b c='>' /></domain >",
        "<?xml version='1.0'?>\n<domain xmlns:secret='urn:a'><sysinfo type='smbios'><baseBoard><entry name='a'>b</entry></baseBoard></sysinfo>\
         <graphics type='vnc' passwd=''/><q:arg value='-cpu'/></domain>\n",
    ] {
        assert_eq!(xml(document), document);
    }
    for document in [
        " { \"metadata\" : {\"name\":\"vm\\u0031 \\\"\\\\\",\"annotations\":{\"a\":\"b, c: {}[]\"}},\"n\":[1e400,-0,true]}\n",
        r#"{"spec":{"volumes":[{"cloudInitNoCloud":{"secretRef":{"name":"my-secret"},"userData":""}}]}}"#,
        r#"{"spec":{"volumes":[{"containerDisk":{"image":"a","imagePullSecret":"pull"}},{"secret":{"secretName":"s"}}]}}"#,
        r#"{"metadata":{"annotations":{"has-password":"true","a":"no token is used"}}}"#,
        r#"{"a":"{\"secretName\": \"b\", \"args\": [\"--version\", \"v1alpha3\"]}"}"#,
        r#"{"interfaces":[{"name":"a","passt":{},"binding":{"name":"passt"}}],"gpu":"passthrough"}"#,
        r#"{"topologyKey":"a","tolerations":[{"key":"b","value":"c"}],"author":"me","key":"a"}"#,
        r#"{"volumes":[{"name":"my-secret","persistentVolumeClaim":{"claimName":"a"}}]}"#,
        r#"{"volumes":[{"cloudInitNoCloud":{"networkDataSecretRef":{"name":"a"}}}]}"#,
        "{}",
        r#"{"a":"\ud800"}"#,
    ] {
        assert_eq!(json(document), document);
    }
}

#[test]
fn a_placeholder_has_the_form_that_hooks_read() {
    for (document, expected) in [
        (
            r#"{"userDataBase64":"czNjcjN0"}"#,
            format!(r#"{{"userDataBase64":"{PLACEHOLDER_BASE64}"}}"#),
        ),
        (
            r##"{"userData":"#cloud-config\npassword: a"}"##,
            r##"{"userData":"#cloud-config\n{} # replaced by sidecar-shim --record\n"}"##
                .to_owned(),
        ),
        (
            r#"{"networkData":"version: 2\n"}"#,
            r#"{"networkData":"{} # replaced by sidecar-shim --record\n"}"#.to_owned(),
        ),
        (
            r#"{"kubevirt.io/ignitiondata":"{\"a\":1}"}"#,
            r#"{"kubevirt.io/ignitiondata":"{\"replaced by sidecar-shim --record\": true}"}"#
                .to_owned(),
        ),
        (
            r##"{"UserData":"#!/bin/bash\nexit"}"##,
            r##"{"UserData":"#!/bin/sh\n# replaced by sidecar-shim --record\n"}"##.to_owned(),
        ),
        (r#"{"token":"a"}"#, r#"{"token":"REPLACED"}"#.to_owned()),
    ] {
        assert_eq!(json(document), expected);
    }
    assert_eq!(
        xml("<domain><secret uuid='6e8f0c2a-0000-4000-8000-0123456789ab'/></domain>"),
        "<domain><secret uuid='00000000-0000-0000-0000-000000000000'/></domain>"
    );
}

#[test]
fn a_secret_is_replaced_wherever_a_hook_copies_it() {
    let mut secrets = Secrets::default();
    let vmi = format!(r#"{{"a":"x{SECRET}x","{SECRET}":1,"token":"{SECRET}","pin_token":"123"}}"#);
    secrets.collect(Format::Json, &vmi).unwrap();
    let sent = format!("<domain><title>123 {SECRET} a</title></domain>");
    secrets.collect(Format::Xml, &sent).unwrap();
    let returned = sent.replace("<title>", &format!("<a b='\"{SECRET}'/><!--{SECRET}--><title>"));
    secrets.collect_of_hook(Format::Xml, &returned).unwrap();
    assert!(!secrets.hook_made_one());
    assert_eq!(
        secrets.replace(Format::Json, &vmi),
        r#"{"a":"xREPLACEDx","REPLACED":1,"token":"REPLACED","pin_token":"REPLACED"}"#
    );
    assert_eq!(
        secrets.replace(Format::Xml, &returned),
        "<domain><a b='&quot;REPLACED'/><!--REPLACED--><title>123 REPLACED a</title></domain>"
    );
    assert_eq!(secrets.message(&format!("no {SECRET}!\ntoken=other\n")), ["no REPLACED!"]);
    // An escape spells it otherwise.
    let escaped = returned.replace("s3cr", "s3&#x63;r").replace("<!--s3&#x63;r", "<!--s3cr");
    assert!(!secrets.replace(Format::Xml, &escaped).contains("3t-value"));
    let own = "<domain><graphics passwd='made by the hook'/></domain>";
    secrets.collect_of_hook(Format::Xml, own).unwrap();
    assert!(secrets.hook_made_one());
    assert_eq!(secrets.replace(Format::Xml, own), "<domain><graphics passwd='REPLACED'/></domain>");
}

#[test]
fn each_line_of_a_secret_and_each_spelling_of_it_is_replaced() {
    let user_data =
        "#cloud-config\nchpasswd:\n  list: |\n    root:\"HUNTER\"-<é>\nlong: long-é\nruncmd:\n";
    let vmi = serde_json::json!({"userData": user_data, "token": " s3cr3t-value\n"}).to_string();
    let secrets = || {
        let mut secrets = Secrets::default();
        secrets.collect(Format::Json, &vmi).unwrap();
        secrets
    };
    let quoted = serde_json::Value::from(user_data).to_string();
    let twice = serde_json::Value::from(&*quoted).to_string();
    for copy in [
        user_data.to_owned(),
        user_data.trim().to_owned(),
        user_data.replace('\n', "\r\n"),
        user_data.replace('\n', " / "),
        quoted.replace('<', "\\u003c").replace('>', "\\u003e"),
        quoted.replace('é', "\\u00e9"),
        format!("'{}'", user_data.replace('\n', "\\n")),
        quoted,
        twice,
    ] {
        let message = secrets().message(&format!("this VM's user data is bad: {copy}")).join("\n");
        assert!(!message.contains("HUNTER") && !message.contains("long-"), "{copy} is {message}");
        let shown = secrets().without(&copy).unwrap();
        assert!(!shown.contains("HUNTER") && !shown.contains("long-"), "{copy} is {shown}");
    }
    let message = secrets().message(&format!("this VM's user data is bad: {user_data}"));
    assert_eq!(message[0], "this VM's user data is bad: #cloud-config");
    // What was trimmed is what the hook makes of the placeholder, too.
    let sent = "<domain/>";
    for (text, is_made) in
        [("s3cr3t-value", false), ("root:&quot;HUNTER&quot;-&lt;é&gt;", true), ("runcmd:", false)]
    {
        let mut secrets = secrets();
        secrets.collect(Format::Xml, sent).unwrap();
        let returned = format!("<domain><description>{text}</description></domain>");
        secrets.collect_of_hook(Format::Xml, &returned).unwrap();
        assert_eq!(secrets.hook_made_one(), is_made, "{text}");
        let shown = secrets.replace(Format::Xml, &returned);
        assert_eq!(shown.contains(text), text == "runcmd:", "{shown}");
    }
    // A line that is only the name of a secret is none.
    let mut named = Secrets::default();
    named.collect(Format::Json, r#"{"a":"password\n: s3cr3t-value"}"#).unwrap();
    assert_eq!(named.without("a password, : s3cr3t-value").unwrap(), "a password, REPLACED");
    // What was sent already is passed on.
    let mut secrets = secrets();
    let sent = "<domain><title>long: long-é</title></domain>";
    secrets.collect(Format::Xml, sent).unwrap();
    secrets.collect_of_hook(Format::Xml, sent).unwrap();
    assert!(!secrets.hook_made_one());
}

#[test]
fn the_lines_of_a_message_that_hold_a_secret_are_left_out() {
    let lines = |text: &str| Secrets::default().message(text);
    assert_eq!(lines("no GPU\n\n token=a \n ask the admin\n"), ["no GPU", "ask the admin"]);
    for text in [
        "its password:\nhunter22",
        "it is\n-----BEGIN RSA PRIVATE KEY-----\nhunter22",
        "it is\n#cloud-config\nhunter22",
        "it is\ntokens = [\nhunter22\n]",
    ] {
        assert!(!lines(text).concat().contains("hunter22"), "{text}");
    }
    // A status that was cut has the beginning of a secret at its end.
    let mut secrets = Secrets::default();
    secrets.collect(Format::Json, r#"{"token":"s3cr3t-value-of-it"}"#).unwrap();
    assert_eq!(secrets.message("no s3cr3t-val"), ["no REPLACED"]);
    assert_eq!(secrets.message("no s3cr3"), ["no s3cr3"]);
}

#[test]
fn the_page_lists_each_name_of_a_secret() {
    let page = include_str!("../../../docs/cases.md");
    let (_, list) = page.split_once("### What is replaced").unwrap();
    let (list, _) = list.split_once("These stay").unwrap();
    let list = looks::plain(list);
    for name in looks::SECRET_NAMES {
        assert!(list.contains(name), "docs/cases.md does not list {name}");
    }
    for word in looks::SECRET_WORDS {
        assert!(page.contains(&format!("`{word}`")), "docs/cases.md does not list {word}");
    }
}

/// Any JSON value.
fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<i64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
        ".*[\"\\\\{}\\[\\]:,].*".prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
            prop::collection::hash_map(any::<String>(), inner, 0..5)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

/// The number of strings in a value, without keys.
fn strings(value: &serde_json::Value) -> usize {
    match value {
        serde_json::Value::String(_) => 1,
        serde_json::Value::Array(list) => list.iter().map(strings).sum(),
        serde_json::Value::Object(map) => map.values().map(strings).sum(),
        _ => 0,
    }
}

/// Any content of an element, with values in all spellings.
fn any_xml() -> impl Strategy<Value = String> {
    let text = "[ -;=?-Z^-~é\n\t]{0,20}".prop_map(|text| text.replace('&', "&amp;"));
    let leaf = prop_oneof![
        text.clone(),
        "[ -,.-=?-Z^-~é]{0,20}".prop_map(|text| format!("<!--{text}-->")),
        "[ -=?-Z^-~é<&]{0,20}".prop_map(|text| format!("<![CDATA[{text}]]>")),
        "[ -=@-~é]{0,20}".prop_map(|text| format!("<?p {text}?>")),
        Just("&lt;&#x41;&apos;".to_owned()),
    ];
    leaf.prop_recursive(4, 30, 5, move |inner| {
        let name =
            prop_oneof![Just("a"), Just("secret"), Just("q:arg"), Just("password"), Just("é")];
        let attribute = "[ !#-%(-;=?-~é]{0,12}".prop_map(|text| text.replace('&', "&#38;"));
        let inner = prop::collection::vec(inner, 0..5).prop_map(|parts| parts.concat());
        (name, attribute.clone(), attribute, inner).prop_map(|(name, one, other, inner)| {
            format!(
                "<{name} value=\"{one}'>\"\n\tpasswd = '{other}\"/>'>{inner}</{name} ><{name}/>"
            )
        })
    })
}

proptest! {
    #[test]
    fn any_json_keeps_its_bytes_or_its_form(value in any_json(), pretty in any::<bool>()) {
        let text = if pretty { format!("{value:#}") } else { value.to_string() };
        prop_assert_eq!(&json::walk(&text, &mut |_, _| None), &text);
        let mut visited = 0;
        let replaced = json::walk(&text, &mut |place, text| {
            visited += usize::from(!place.is_key);
            place.is_key.then(|| text.to_owned()).or_else(|| Some("\"\\\n".to_owned()))
        });
        let replaced: serde_json::Value = serde_json::from_str(&replaced).unwrap();
        prop_assert_eq!((visited, strings(&replaced)), (strings(&value), strings(&value)));
    }

    #[test]
    fn any_domain_keeps_its_bytes_or_stays_well_formed(inside in any_xml()) {
        let domain = format!("<domain xmlns:q='u'>{inside}</domain>\n");
        assert_well_formed(&domain);
        prop_assert_eq!(&xml::walk(&domain, &mut |_, _| None), &domain);
        assert_well_formed(&xml::walk(&domain, &mut |_, _| Some("<&]]>'\"?>--\n é".to_owned())));
        assert_well_formed(&xml(&domain));
    }
}
