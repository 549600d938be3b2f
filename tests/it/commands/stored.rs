//! `moesync ls`, `get` and `cat`: what is stored, without a ledger and without keys, from a folder and from a bucket.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    process::Stdio,
};

use moesync::emulator::Fault;
use serde_json::Value;
use tokio::io::AsyncReadExt as _;

use crate::support::{Bench, Series, oracle::manifest_key, s3_server::Server};

/// Three dates of one report, stored; then ledger and key are deleted.
async fn stored(bench: Bench) -> Bench {
    bench.sync(0).await;
    fs::remove_dir_all(bench.path("ledger")).unwrap();
    fs::remove_file(bench.path("secret-key")).unwrap();
    bench
}

async fn on_disk() -> Bench {
    stored(Bench::new(&[Series::campaign("Report test", 3)]).await).await
}

fn objects(listed: &Value) -> Vec<Value> {
    listed["objects"].as_array().unwrap().clone()
}

/// The contents of an entry, by another reader.
fn unzipped(archive: &[u8], name: &str) -> Vec<u8> {
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(archive)).unwrap();
    let mut contents = Vec::new();
    archive.by_name(name).unwrap().read_to_end(&mut contents).unwrap();
    contents
}

/// Standard output as bytes.
async fn cat(bench: &Bench, arguments: &[&str]) -> Vec<u8> {
    let output = bench.command(&[&["cat"], arguments].concat()).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Everything that the three commands promise, at any destination.
async fn is_listed_and_copied(bench: &Bench) {
    let date = bench.newest.to_string();
    let listed = objects(&bench.run(&["ls", "--json"]).await.expect(0).json());
    let keys: Vec<_> = listed.iter().map(|object| object["key"].as_str().unwrap().to_owned()).collect();
    assert_eq!(keys, bench.due().iter().map(|(series, date)| series.key(*date)).collect::<Vec<_>>());
    assert!(listed.iter().all(|object| object["damage"].is_null() && object["entries"].as_array().unwrap().len() == 6));

    let one = bench.run(&["ls", "--json", "--report", "report-test", "--date", &date]).await.expect(0).json();
    assert_eq!(objects(&one), listed[2..]);
    let later = bench.run(&["ls", "--json", "--workspace", "acme", "--from", &date]).await.expect(0).json();
    assert_eq!(objects(&later), listed[2..]);
    let text = bench.run(&["ls"]).await.expect(0).stdout;
    assert!(keys.iter().all(|key| text.contains(key)) && text.contains("3 objects"), "{text}");

    let of_newest = ["--report", "report-test", "--date", &date];
    let archive = fs::read(bench.object(&keys[2])).unwrap();
    assert!(cat(bench, &of_newest).await == archive);
    assert!(cat(bench, &["--key", &keys[0]]).await == fs::read(bench.object(&keys[0])).unwrap());
    for entry in listed[2]["entries"].as_array().unwrap() {
        let name = entry["name"].as_str().unwrap();
        let copied = cat(bench, &[&of_newest[..], &["--entry", name]].concat()).await;
        assert!(copied == unzipped(&archive, name), "{name}");
        assert_eq!(entry["crc32"], format!("{:08x}", crc32fast::hash(&copied)));
    }

    let got = bench.run(&[&["get", "--json"], &of_newest[..]].concat()).await.expect(0).json();
    assert_eq!(got["key"], keys[2].as_str());
    assert!(fs::read(bench.path(got["path"].as_str().unwrap())).unwrap() == archive);
    fs::remove_file(bench.path(got["path"].as_str().unwrap())).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_in_a_folder_is_listed_and_copied() {
    is_listed_and_copied(&on_disk().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_in_a_bucket_is_listed_and_copied() {
    let server = Server::start(false).await;
    let bench = stored(Bench::on_s3(&server, &[Series::campaign("Report test", 3)]).await).await;
    is_listed_and_copied(&bench).await;
    let written =
        server.requests().into_iter().filter(|request| !request.starts_with("GET") && !request.starts_with("HEAD"));
    let at_first = written.count();
    bench.run(&["ls"]).await.expect(0);
    let written =
        server.requests().into_iter().filter(|request| !request.starts_with("GET") && !request.starts_with("HEAD"));
    assert_eq!(written.count(), at_first, "a listing has changed the bucket");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_entry_is_copied_whole_and_a_reader_that_stops_is_no_failure() {
    let bench = stored(Bench::new(&[Series::campaign("Report test", 1).bytes(4 << 20)]).await).await;
    let listed = objects(&bench.run(&["ls", "--json"]).await.expect(0).json());
    let (key, name) = (listed[0]["key"].as_str().unwrap(), listed[0]["entries"][0]["name"].as_str().unwrap());
    let archive = fs::read(bench.object(key)).unwrap();
    assert!(cat(&bench, &["--key", key, "--entry", name]).await == unzipped(&archive, name));
    for entry in [&[] as &[&str], &["--entry", name]] {
        let mut child = bench.command(&[&["cat", "--key", key], entry].concat()).spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        stdout.read_exact(&mut [0; 10]).await.unwrap();
        drop(stdout);
        let output = child.wait_with_output().await.unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_object_is_an_error_and_gets_no_file() {
    let bench = on_disk().await;
    let (series, date) = bench.due()[0];
    let key = series.key(date);
    let path = bench.object(&key);
    let listed = objects(&bench.run(&["ls", "--json"]).await.expect(0).json());
    let name = listed[0]["entries"][0]["name"].as_str().unwrap();
    let mut archive = fs::read(&path).unwrap();
    let last = archive.len() - 1;
    // The comment's length of a zip, which leaves the entries as they are; and the data of the first entry.
    for at in [last, 80] {
        archive[at] ^= 1;
        fs::write(&path, &archive).unwrap();
        for entry in [&[] as &[&str], &["--entry", name]] {
            for command in ["cat", "get"] {
                let arguments = [&[command, "--key", &key], entry].concat();
                let output = bench.command(&arguments).output().await.unwrap();
                let error = String::from_utf8_lossy(&output.stderr);
                assert_eq!(output.status.code(), Some(1), "{arguments:?}: {error}");
                assert!(error.contains("is damaged") && error.contains("verify --repair"), "{error}");
            }
        }
        archive[at] ^= 1;
    }
    fs::remove_file(&path).unwrap();
    let missing = bench.run(&["get", "--key", &key]).await.expect(1);
    assert!(missing.stderr.contains("is missing"), "{}", missing.stderr);
    let listed = objects(&bench.run(&["ls", "--json"]).await.expect(0).json());
    assert_eq!(listed[0]["damage"], "the object is missing");
    let left: Vec<_> = fs::read_dir(bench.folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "the folder has more than configuration and reports: {left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_replaced_only_with_force() {
    let bench = on_disk().await;
    let (series, date) = bench.due()[0];
    let key = series.key(date);
    let archive = fs::read(bench.object(&key)).unwrap();
    let file = bench.path("mine.zip");
    fs::write(&file, "mine").unwrap();
    let into = ["get", "--key", &key, "--output", file.to_str().unwrap()];
    let refused = bench.run(&into).await.expect(2);
    assert!(refused.stderr.contains("--force"), "{}", refused.stderr);
    assert_eq!(fs::read(&file).unwrap(), b"mine");
    bench.run(&[&into[..], &["--force"]].concat()).await.expect(0);
    assert!(fs::read(&file).unwrap() == archive);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o400, 0o400);

    let folder = bench.path("folder");
    fs::create_dir(&folder).unwrap();
    bench.run(&["get", "--key", &key, "-o", folder.to_str().unwrap()]).await.expect(0);
    assert!(fs::read(folder.join(series.file_name(date))).unwrap() == archive);
    bench.run(&["get", "--key", &key, "-o", "/dev/null", "--force"]).await.expect(2);
    bench.run(&["get", "--key", &key, "-o", "no-such-folder/x.zip"]).await.expect(1);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_entries_never_become_paths() {
    let bench = on_disk().await;
    let (series, date) = bench.due()[0];
    let key = series.key(date);
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let names = ["../../evil.csv", "/etc/passwd", "..", "a\u{1b}[31m\nb.csv", ".profile"];
    for name in names {
        archive.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        archive.write_all(name.as_bytes()).unwrap();
    }
    let archive = archive.finish().unwrap().into_inner();
    let manifest = bench.object(&manifest_key(&key));
    let mut described: Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    described["size"] = archive.len().into();
    described["sha256"] = crate::support::oracle::hash(&archive).into();
    described["entries"] = names
        .iter()
        .map(|name| {
            let crc32 = format!("{:08x}", crc32fast::hash(name.as_bytes()));
            serde_json::json!({"name": name, "size": name.len(), "crc32": crc32})
        })
        .collect();
    fs::write(bench.object(&key), &archive).unwrap();
    fs::write(manifest, described.to_string()).unwrap();

    let folder = bench.path("a/b/c");
    fs::create_dir_all(&folder).unwrap();
    let mut written = Vec::new();
    for name in names {
        let arguments = ["get", "--json", "--key", &key, "--entry", name, "-o", folder.to_str().unwrap()];
        let got = bench.run(&arguments).await.expect(0).json();
        let path = std::path::PathBuf::from(got["path"].as_str().unwrap());
        assert_eq!(path.parent(), Some(folder.as_path()));
        assert_eq!(fs::read(&path).unwrap(), name.as_bytes());
        written.push(path.file_name().unwrap().to_str().unwrap().to_owned());
    }
    assert_eq!(written, ["evil.csv", "passwd", "-.", "a__31m_b.csv", "-profile"]);
    let listed = bench.run(&["ls", "--entries"]).await.expect(0).stdout;
    assert!(listed.contains("evil.csv") && !listed.contains('\u{1b}'), "{listed}");
    let unknown = bench.run(&["cat", "--key", &key, "--entry", "evil.csv"]).await.expect(2);
    assert!(unknown.stderr.contains("../../evil.csv") && !unknown.stderr.contains('\u{1b}'), "{}", unknown.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_content_of_a_date_is_copied_by_its_key() {
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    let (series, date) = bench.due()[0];
    fs::create_dir_all(bench.object(&series.key(date)).parent().unwrap()).unwrap();
    fs::write(bench.object(&series.key(date)), "of another program").unwrap();
    bench.sync(0).await;
    let listed = objects(&bench.run(&["ls", "--json"]).await.expect(0).json());
    let [version] = listed.as_slice() else { panic!("{listed:?}") };
    assert_eq!(version["version"], true);
    let truth = bench.truth(series, date).await;
    assert!(cat(&bench, &["--key", version["key"].as_str().unwrap()]).await == truth);
    let date = date.to_string();
    assert!(cat(&bench, &["--report", "report-test", "--date", &date]).await == truth);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_stored_is_an_error_that_names_it() {
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    let missing = bench.run(&["ls"]).await.expect(1);
    assert!(missing.stderr.contains("does not exist"), "{}", missing.stderr);
    assert!(!bench.path("reports").exists(), "a listing has made the folder");
    let (series, date) = bench.due()[0];
    bench.fault_at(&series.file_name(date), Fault::NotYet, 100);
    fs::create_dir(bench.path("reports")).unwrap();
    let date = date.to_string();
    let missing = bench.run(&["cat", "--report", "report-test", "--date", &date]).await.expect(1);
    assert!(missing.stderr.contains("nothing is stored"), "{}", missing.stderr);
    let other = bench.run(&["get", "--key", "other/x/date=2026-11-21/y.zip"]).await.expect(2);
    assert!(other.stderr.contains("no configured report"), "{}", other.stderr);
    bench.run(&["get", "--report", "report-test"]).await.expect(2);
    bench.run(&["ls", "--from", "2026-11-22", "--to", "2026-11-21"]).await.expect(2);
    assert_eq!(bench.run(&["ls"]).await.expect(0).stdout, "0 objects, 0 B\n");
    let closed = bench.command(&["ls"]).stdout(Stdio::null()).status().await.unwrap();
    assert!(closed.success());
}
