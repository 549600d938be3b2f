//! Where secrets are read, and that none is shown.

use std::{fs, os::unix::fs::PermissionsExt as _};

use moesync::config;
use secrecy::ExposeSecret as _;

use super::{CANARY, GOOD, changed, errors_of, load, load_bytes};

#[test]
fn a_secret_has_exactly_one_source() {
    insta::assert_snapshot!(errors_of(&[
        ("secret_key = \"canary-5d41402a\"\n", ""),
        ("secret_key =", "secret_key_file = \"/key\"\nsecret_key ="),
        ("secret_key =", "secret_key_file = \"/key\"\nsecret_key_env = \"KEY\"\nsecret_key ="),
        ("secret_key =", "api_key_file = \"/key\"\napi_key_env = \"KEY\"\nsecret_key ="),
        ("\"canary-5d41402a\"", "\"\""),
        ("secret_key =", "secret_key_env ="),
        ("secret_key = \"canary-5d41402a\"", "secret_key_file = \"${UNSET\""),
    ]), @r#"
    moesync.toml:1: workspaces[0]: no secret key; give exactly one of secret_key_file, secret_key_env, secret_key_command and secret_key
    moesync.toml:7: workspaces[0].secret_key: only one of secret_key_file, secret_key may be given; remove the others
    moesync.toml:8: workspaces[0].secret_key: only one of secret_key_file, secret_key_env, secret_key may be given; remove the others
    moesync.toml:7: workspaces[0].api_key_env: only one of api_key_file, api_key_env may be given; remove the others
    moesync.toml:6: workspaces[0].secret_key: must not be empty
    moesync.toml:6: workspaces[0].secret_key_env: expected the name of an environment variable: letters, digits and "_"
    moesync.toml:6: workspaces[0].secret_key_file: a "${" has no closing "}"; write a literal "${" as "$${"
    "#);
}

#[test]
fn a_secret_file_is_read_at_each_use_without_its_line_ends() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("acme.key");
    let text = changed("secret_key = \"canary-5d41402a\"", "secret_key_file = \"${KEYS}/acme.key\"");
    let keys = folder.path().display().to_string();
    let config = load_bytes(text.as_bytes(), &[("KEYS", &keys)]).expect("the file is not looked at yet");
    let secret = || config.workspaces[0].secret_key.resolve().map(|secret| secret.expose_secret().to_owned());
    let write = |bytes: &[u8], mode: u32| {
        fs::write(&key, bytes).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
    };
    let error = || {
        let error = secret().unwrap_err().to_string().replace(&keys, "/keys");
        let (_, at_home) = error.split_once("moesync.toml").unwrap();
        format!("moesync.toml{at_home}")
    };

    let mut errors = vec![error()];
    write(b"canary-5d41402a\r\n\n", 0o640);
    assert_eq!(secret().unwrap(), CANARY);
    write(b" new key ", 0o600);
    assert_eq!(secret().unwrap(), " new key ", "it takes effect without a restart, and only line ends are trimmed");
    for (bytes, mode) in [
        (&b"canary-5d41402a"[..], 0o644),
        (b"\n", 0o600),
        (b"canary-5d41402a\nkey = 2", 0o600),
        (b"canary-5d41402a\xff", 0o600),
        (&[b'x'; 70_000], 0o600),
    ] {
        write(bytes, mode);
        errors.push(error());
    }
    assert!(!errors.concat().contains(CANARY));
    insta::assert_snapshot!(errors.join("\n"), @r#"
    moesync.toml:6: workspaces[0].secret_key_file: cannot read the secret file /keys/acme.key: No such file or directory (os error 2)
    moesync.toml:6: workspaces[0].secret_key_file: every user of this machine may read the secret file /keys/acme.key (mode 0644); run `chmod o-r` on it (or, for a workspace's key or a notify target's, set allow_world_readable = true there)
    moesync.toml:6: workspaces[0].secret_key_file: the secret in the file /keys/acme.key is empty
    moesync.toml:6: workspaces[0].secret_key_file: the secret in the file /keys/acme.key has several lines; a key has one
    moesync.toml:6: workspaces[0].secret_key_file: the secret file /keys/acme.key is not UTF-8 text
    moesync.toml:6: workspaces[0].secret_key_file: the secret file /keys/acme.key is larger than 64 KiB, so it is not a key
    "#);

    write(b"canary-5d41402a", 0o644);
    let allowed = text.replace("secret_key_file", "allow_world_readable = true\nsecret_key_file");
    let config = load_bytes(allowed.as_bytes(), &[("KEYS", &keys)]).unwrap();
    assert_eq!(config.workspaces[0].secret_key.resolve().unwrap().expose_secret(), CANARY);
}

#[test]
fn a_secret_in_the_environment_is_read_when_it_is_needed() {
    // Cargo sets the first for every test; nothing sets the second.
    let source = |name: &str| {
        load(&changed("secret_key = \"canary-5d41402a\"", &format!("secret_key_env = \"{name}\""))).unwrap().workspaces
            [0]
        .secret_key
        .clone()
    };
    assert_eq!(source("CARGO_PKG_NAME").resolve().unwrap().expose_secret(), "moesync");
    let problem = source("MOESYNC_TEST_UNSET").resolve().unwrap_err().to_string();
    let (_, problem) = problem.rsplit_once('/').unwrap();
    insta::assert_snapshot!(problem, @r#"moesync.toml:6: workspaces[0].secret_key_env: the environment variable MOESYNC_TEST_UNSET is not set; it should hold a secret"#);
}

#[test]
fn an_unset_variable_in_the_path_of_a_secret_is_reported_when_it_is_needed() {
    let file = changed("secret_key = \"canary-5d41402a\"", "secret_key_file = \"${UNSET}/key\"");
    let config = load(&file).unwrap();
    let problem = config.workspaces[0].secret_key.resolve().unwrap_err().to_string();
    let (_, problem) = problem.rsplit_once('/').unwrap();
    insta::assert_snapshot!(problem, @r#"moesync.toml:6: workspaces[0].secret_key_file: the environment variable "UNSET" is not set"#);
}

#[test]
fn no_secret_is_shown_by_a_valid_configuration() {
    let text = changed("secret_key =", "api_key = \"canary-5d41402a\"\nsecret_key =")
        .replace("url =", "options = { aws_secret_access_key = \"canary-5d41402a\" }\nurl =");
    let text = format!(
        "[ledger]\nurl = \"postgres://moesync:canary-5d41402a@db/moesync?password=canary-5d41402a\"\n\
         [network]\nproxy = \"http://user:canary-5d41402a@proxy:3128\"\n{text}"
    );
    let config = load(&text).unwrap();
    assert!(!format!("{config:?} {config:#?}").contains(CANARY), "{config:?}");
}

/// A typing error at every position of a configuration: a character too many, one too few, the end cut off. The result
/// may be valid; if not, [`load_bytes`] checks the error for the secret.
#[test]
fn no_typing_error_brings_a_secret_into_an_error() {
    let mut refused = 0;
    for at in 0..GOOD.len() {
        let (before, after) = GOOD.split_at(at);
        refused += usize::from(load(&format!("{before}{}", &after[1..])).is_err());
        refused += usize::from(load(before).is_err());
        for slip in ['"', '=', '\n', '[', '}', '#', '.'] {
            refused += usize::from(load(&format!("{before}{slip}{after}")).is_err());
        }
    }
    assert!(refused > GOOD.len(), "most slips are noticed: {refused}");
}

#[test]
fn a_key_file_may_begin_with_a_byte_order_mark_and_odd_keys_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let (key, config) = (folder.path().join("key"), folder.path().join("moesync.toml"));
    fs::write(
        &config,
        changed("secret_key = \"canary-5d41402a\"", "secret_key_file = \"KEY\"").replace("KEY", key.to_str().unwrap()),
    )
    .unwrap();
    fs::write(&key, "").unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let config = config::load(&config, []).unwrap();
    let secret = |bytes: &[u8]| {
        fs::write(&key, bytes).unwrap();
        let source = &config.workspaces[0].secret_key;
        let text =
            source.resolve().map(|secret| secret.expose_secret().to_owned()).map_err(|problem| problem.to_string());
        (text, source.oddity().map(|problem| problem.to_string()))
    };
    assert_eq!(secret(b"\xef\xbb\xbfcanary-5d41402a\r\n"), (Ok(CANARY.to_owned()), None));
    for (bytes, odd) in
        [("canary-5d41402a \n", "a space"), ("\"canary-5d41402a\"\n", "quotes"), ("'canary-5d41402a'", "quotes")]
    {
        let (text, oddity) = secret(bytes.as_bytes());
        assert_eq!(text.unwrap(), bytes.trim_end_matches('\n'), "it is taken as it is");
        let oddity = oddity.expect(bytes);
        assert!(oddity.contains("secret_key_file") && oddity.contains(odd) && !oddity.contains(CANARY), "{oddity}");
    }
    let (_, oddity) = secret(b"YOUR-SECRET-KEY\n");
    assert!(oddity.is_some_and(|oddity| oddity.to_string().contains("placeholder")));
    for utf_16 in [b"k\0e\0y\0".as_slice(), b"\xff\xfek\0e\0y\0"] {
        let (text, _) = secret(utf_16);
        assert!(text.clone().unwrap_err().contains("UTF-"), "{text:?}");
    }
}

#[test]
fn a_command_prints_a_secret_and_is_run_without_a_shell_at_each_use() {
    let folder = tempfile::tempdir().unwrap();
    let source = |command: &str| {
        let text = changed("secret_key = \"canary-5d41402a\"", &format!("secret_key_command = {command}"));
        let env = [("PART", CANARY), ("FOLDER", folder.path().to_str().unwrap())];
        load_bytes(text.as_bytes(), &env).unwrap().workspaces[0].secret_key.clone()
    };
    let secret = |command: &str| source(command).resolve().map(|secret| secret.expose_secret().to_owned());
    assert_eq!(secret(r#"["printf", "%s \n", "${PART}"]"#).unwrap(), format!("{CANARY} "));
    assert_eq!(secret(r#"["echo", "$HOME; ls"]"#).unwrap(), "$HOME; ls");
    let counted = source(r#"["sh", "-c", "echo >> ${FOLDER}/count; wc -l < ${FOLDER}/count"]"#);
    let run = || counted.resolve().unwrap().expose_secret().trim().to_owned();
    assert_eq!([run(), run()], ["1", "2"]);

    let errors = [
        r#"["sh", "-c", "echo canary-5d41402a; echo denied: canary-5d41402a >&2; exit 3"]"#,
        r#"["sh", "-c", "echo ${PART} >&2; kill -9 $$", "${PART}"]"#,
        r#"["sh", "-c", "for i in $(seq 999); do echo line $i >&2; done; false"]"#,
        r#"["no-such-program", "${PART}"]"#,
        r#"["true"]"#,
        r#"["printf", "one\\ntwo"]"#,
        r#"["printf", "\\377"]"#,
        r#"["head", "-c", "70000", "/dev/zero"]"#,
        r#"["${UNSET}"]"#,
    ]
    .map(|command| {
        let error = secret(command).unwrap_err().to_string();
        assert!(!error.contains(CANARY), "{error}");
        error.rsplit_once("moesync.toml").unwrap().1.to_owned()
    });
    insta::assert_snapshot!(errors.join("\n"), @r#"
    :6: workspaces[0].secret_key_command: the command "sh" failed: exit status: 3; its standard error: denied: …
    :6: workspaces[0].secret_key_command: the command "sh" failed: signal: 9 (SIGKILL); its standard error: …
    :6: workspaces[0].secret_key_command: the command "sh" failed: exit status: 1; its standard error ends with: …966 line 967 line 968 line 969 line 970 line 971 line 972 line 973 line 974 line 975 line 976 line 977 line 978 line 979 line 980 line 981 line 982 line 983 line 984 line 985 line 986 line 987 line 988 line 989 line 990 line 991 line 992 line 993 line 994 line 995 line 996 line 997 line 998 line 999
    :6: workspaces[0].secret_key_command: the command "no-such-program" could not be run: No such file or directory (os error 2)
    :6: workspaces[0].secret_key_command: the secret in the output of the command "true" is empty
    :6: workspaces[0].secret_key_command: the secret in the output of the command "printf" has several lines; a key has one
    :6: workspaces[0].secret_key_command: the output of the command "printf" is not UTF-8 text
    :6: workspaces[0].secret_key_command: the output of the command "head" is larger than 64 KiB, so it is not a key
    :6: workspaces[0].secret_key_command[0]: the environment variable "UNSET" is not set
    "#);
    assert!(!format!("{:?}", source(r#"["echo", "${PART}"]"#)).contains(CANARY));
    insta::assert_snapshot!(errors_of(&[
        ("secret_key = \"canary-5d41402a\"", "secret_key_command = []"),
        ("secret_key = \"canary-5d41402a\"", "secret_key_command = \"pass show key\""),
        ("secret_key =", "secret_key_command = [\"pass\"]\nsecret_key ="),
    ]), @r#"
    moesync.toml:6: workspaces[0].secret_key_command: expected a program and its arguments, such as ["pass", "show", "moengage"]
    moesync.toml:6: workspaces[0].secret_key_command: expected a list, found a string
    moesync.toml:7: workspaces[0].secret_key: only one of secret_key_command, secret_key may be given; remove the others
    "#);
}
