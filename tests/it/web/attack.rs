//! Attacks on the page: other methods and hosts, no token, hostile names, slow and endless requests.

use std::{fs, os::unix::fs::PermissionsExt as _};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use reqwest::{Method, StatusCode, header};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{InProcess, Served, TOKEN, assets, client, paths, secret_file, with_web};
use crate::support::{Bench, PATIENCE, Series, wait_until};

const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

#[tokio::test(flavor = "multi_thread")]
async fn every_response_has_the_security_headers() {
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    let served = Served::start(&bench).await;
    let page = served.text("/").await;
    let mut all = paths(&bench);
    all.extend(assets(&page));
    all.push("/nothing".to_owned());
    assert_eq!(all.len(), 14);
    for path in all {
        let request = client().get(format!("{}{path}", served.url)).header(header::ORIGIN, "https://evil.example");
        let response = request.send().await.unwrap();
        let headers = response.headers();
        assert_eq!(headers["content-security-policy"], POLICY, "{path}");
        assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
        assert_eq!(headers["referrer-policy"], "no-referrer", "{path}");
        assert_eq!(headers["cross-origin-resource-policy"], "same-origin", "{path}");
        assert!(headers.contains_key("cache-control"), "{path}");
        assert!(!headers.keys().any(|name| name.as_str().starts_with("access-control")), "{path}");
    }
    assert!(!page.contains("style=") && !page.contains("onclick") && !page.contains("<style"), "{page}");
    served.daemon.stop(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_get_and_head_are_answered() {
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    let served = Served::start(&bench).await;
    for path in paths(&bench).into_iter().chain(["/nothing".to_owned()]) {
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS, Method::TRACE] {
            let response = client().request(method.clone(), format!("{}{path}", served.url)).send().await.unwrap();
            assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
            assert_eq!(response.headers()["allow"], "GET, HEAD");
            let text = response.text().await.unwrap();
            let is_json =
                serde_json::from_str::<serde_json::Value>(&text).is_ok_and(|answer| answer["error"].is_string());
            assert_eq!(is_json, path.starts_with("/api/"), "{method} {path}: {text}");
        }
        let head = client().head(format!("{}{path}", served.url)).send().await.unwrap();
        let get = served.get(&path).await;
        assert_eq!((head.status(), &head.headers()["content-type"]), (get.status(), &get.headers()["content-type"]));
        assert_eq!(head.bytes().await.unwrap().len(), 0, "{path}");
    }
    served.daemon.stop(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_and_messages_are_shown_as_text() {
    let name = "<script>alert(1)</script>'\"&<img src=x onerror=alert(2)>/../..";
    let bench = Bench::new(&[Series { id: name.to_owned(), ..Series::campaign("Report test", 2) }]).await;
    bench.fault(r#"status=400,body={"error":{"message":"<svg onload=alert(3)>"}}"#);
    let text = bench.config().replace(&format!("id = \"{name}\""), &format!("id = '''{name}'''"));
    let lines = "listen = \"127.0.0.1:0\"";
    bench.write_config(&text.replace("listen = \"\"", lines));
    let daemon = crate::support::Daemon::start(&bench).await;
    let line = daemon.log().into_iter().find(|line| line.contains("\"message\":\"running\"")).unwrap();
    let url = line.split("http://").nth(1).unwrap().split('/').next().unwrap().to_owned();
    assert!(wait_until(async || bench.requests() >= 1).await);
    let get = async |path: &str| {
        let response = client().get(format!("http://{url}{path}")).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        response.text().await.unwrap()
    };
    let overview = get("/").await;
    let link = overview.split("href=\"").find(|rest| rest.starts_with("/report?")).unwrap();
    let link = link.split('"').next().unwrap().replace("&amp;", "&");
    let denied = async || get(&link).await.contains("onload=alert(3)");
    assert!(wait_until(denied).await, "the message is not shown");
    for page in [overview, get(&link).await] {
        for tag in ["<script>", "<img src=x", "<svg"] {
            assert!(!page.contains(tag), "{tag} in {page}");
        }
        assert!(page.contains("&lt;script&gt;alert(1)"), "{page}");
    }
    // In the format of metrics, quotes could end a label.
    assert!(get("/metrics").await.contains("report=\"<script>alert(1)</script>'\\\"&<img"));
    daemon.stop(&bench).await;
}

/// The status of the answer to a request that is sent verbatim; empty if the connection ends without one.
async fn raw(address: std::net::SocketAddr, request: &str) -> Option<u16> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The server may refuse before everything is sent.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8_lossy(&answer).split(' ').nth(1).map(|status| status.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_for_another_host_is_refused_against_dns_rebinding() {
    let bench = Bench::new(&[Series::dump(1)]).await;
    let served = Served::with(&bench, "listen = \"127.0.0.1:0\"\nhosts = [\"Moesync.example.com\"]").await;
    let port = served.address().port();
    let asked = async |host: &str| {
        raw(served.address(), &format!("GET /livez HTTP/1.1\r\n{host}Connection: close\r\n\r\n")).await.unwrap()
    };
    for host in ["localhost", "127.0.0.1", "[::1]", "LOCALHOST", "127.0.0.2"] {
        assert_eq!(asked(&format!("Host: {host}:{port}\r\n")).await, 200, "{host}");
    }
    // DNS cannot redirect an address or localhost, and through a tunnel the port differs.
    for host in ["127.0.0.1", "127.0.0.1:9999", "[::1]:9999", "localhost", "localhost:9999"] {
        assert_eq!(asked(&format!("Host: {host}\r\n")).await, 200, "{host}");
    }
    // Behind a proxy it has a name and any port.
    for host in ["moesync.example.com", "moesync.example.com:443", "MOESYNC.example.com:9"] {
        assert_eq!(asked(&format!("Host: {host}\r\n")).await, 200, "{host}");
    }
    for host in [
        format!("evil.example:{port}"),
        format!("localhost.evil.example:{port}"),
        format!("moesync.example.com.evil.example:{port}"),
        format!("user@localhost:{port}"),
        format!("10.0.0.1:{port}"),
        String::new(),
        "localhost:nonsense".to_owned(),
    ] {
        assert_eq!(asked(&format!("Host: {host}\r\n")).await, 421, "{host}");
    }
    assert_eq!(asked("").await, 421, "no host");
    assert_eq!(asked(&format!("Host: localhost:{port}\r\nHost: evil.example\r\n")).await, 421, "two hosts");
    // No browser sends such a request; on loopback it may be a health check.
    let old = async |host: &str| raw(served.address(), &format!("GET /livez HTTP/1.0\r\n{host}\r\n")).await;
    assert_eq!((old("").await, old("Host: evil.example\r\n").await), (Some(200), Some(421)));
    let absolute =
        format!("GET http://evil.example/livez HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n");
    assert_eq!(raw(served.address(), &absolute).await, Some(421));
    served.daemon.stop(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_token_only_the_open_paths_are_answered() {
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    let token = secret_file(&bench, "web-token", &format!("{TOKEN}\n"));
    let lines =
        format!("listen = \"0.0.0.0:0\"\ntoken_file = \"{}\"\nopen = [\"health\", \"metrics\"]", token.display());
    let served = Served::with(&bench, &lines).await;
    let url = served.url.replace("0.0.0.0", "127.0.0.1");
    let status = async |path: &str, authorization: Option<String>| {
        let request = client().get(format!("{url}{path}"));
        let request = match authorization {
            Some(value) => request.header(header::AUTHORIZATION, value),
            None => request,
        };
        request.send().await.unwrap()
    };
    let basic = |text: String| Some(format!("Basic {}", BASE64_STANDARD.encode(text)));
    for path in paths(&bench) {
        let is_open = ["/livez", "/readyz", "/metrics"].contains(&path.as_str());
        let without = status(&path, None).await;
        assert_eq!(without.status(), if is_open { StatusCode::OK } else { StatusCode::UNAUTHORIZED }, "{path}");
        if is_open {
            continue;
        }
        assert!(without.headers()["www-authenticate"].to_str().unwrap().starts_with("Basic realm="));
        for right in [Some(format!("Bearer {TOKEN}")), Some(format!("bearer {TOKEN}")), basic(format!("me:{TOKEN}"))] {
            assert_eq!(status(&path, right).await.status(), StatusCode::OK, "{path}");
        }
        for wrong in [
            Some(format!("Bearer {TOKEN}x")),
            Some(format!("Bearer {}", &TOKEN[1..])),
            Some("Bearer ".to_owned()),
            Some(TOKEN.to_owned()),
            Some(format!("Digest {TOKEN}")),
            Some("Basic %%%".to_owned()),
            basic(format!("{TOKEN}:")),
            basic(TOKEN.to_owned()),
            basic(String::new()),
        ] {
            assert_eq!(status(&path, wrong.clone()).await.status(), StatusCode::UNAUTHORIZED, "{path} {wrong:?}");
        }
    }
    // The answer does not reveal which paths exist.
    assert_eq!(status("/nothing", None).await.status(), StatusCode::UNAUTHORIZED);
    let daemon = served.daemon;
    assert!(!daemon.log().iter().any(|line| line.contains(TOKEN)), "the log holds the token");
    daemon.stop(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_replaces_the_token_unless_the_new_one_is_invalid() {
    let bench = Bench::new(&[Series::dump(1)]).await;
    let token = secret_file(&bench, "web-token", TOKEN);
    let lines = format!("listen = \"127.0.0.1:0\"\ntoken_file = \"{}\"", token.display());
    let served = Served::with(&bench, &lines).await;
    let status = async |token: &str| {
        client().get(format!("{}/livez", served.url)).bearer_auth(token).send().await.unwrap().status()
    };
    assert_eq!(status(TOKEN).await, StatusCode::OK);
    let next = "another-token-after-a-leak-of-the-first";
    fs::write(&token, next).unwrap();
    served.daemon.signal("HUP").await;
    assert!(wait_until(async || status(TOKEN).await == StatusCode::UNAUTHORIZED).await);
    assert_eq!(status(next).await, StatusCode::OK);
    fs::write(&token, "sesame").unwrap();
    served.daemon.signal("HUP").await;
    served.daemon.wait_for_log("the old one stays valid").await;
    assert_eq!((status(next).await, status("sesame").await), (StatusCode::OK, StatusCode::UNAUTHORIZED));
    assert!(!served.daemon.log().iter().any(|line| line.contains(next) || line.contains("sesame")));
    served.daemon.stop(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_no_secret_is_refused_at_the_start() {
    let bench = Bench::new(&[Series::dump(1)]).await;
    let token = secret_file(&bench, "web-token", TOKEN);
    bench.write_config(&with_web(&bench, &format!("listen = \"127.0.0.1:0\"\ntoken_file = \"{}\"", token.display())));
    let complaint = async || bench.run(&["run"]).await.expect(2).stderr;
    fs::set_permissions(&token, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(complaint().await.contains("every user of this machine may read the secret file"));
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&token, "sesame").unwrap();
    let said = complaint().await;
    assert!(said.contains("has 6 bytes, which can be guessed") && !said.contains("sesame"), "{said}");
    fs::write(&token, "\n").unwrap();
    assert!(complaint().await.contains("is empty"));
    fs::remove_file(&token).unwrap();
    assert!(complaint().await.contains("cannot read the secret file"));
    assert!(!bench.ledger().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_head_is_refused() {
    let bench = Bench::new(&[Series::dump(1)]).await;
    let served = Served::start(&bench).await;
    let many: String = (0..100).map(|number| format!("X-{number}: 1\r\n")).collect();
    let long = format!("X: {}\r\n", "a".repeat(64 * 1024));
    let path = format!("/{}", "a".repeat(64 * 1024));
    for request in [
        format!("GET /livez HTTP/1.1\r\n{many}\r\n"),
        format!("GET /livez HTTP/1.1\r\n{long}\r\n"),
        format!("GET {path} HTTP/1.1\r\n\r\n"),
    ] {
        let status = raw(served.address(), &request).await;
        assert!(status.is_none_or(|status| (400..500).contains(&status)), "{status:?}");
    }
    assert_eq!(raw(served.address(), "nonsense\r\n\r\n").await, Some(400));
    assert_eq!(served.get("/livez").await.status(), StatusCode::OK);
    served.daemon.stop(&bench).await;
}

#[tokio::test]
async fn idle_connections_do_not_exhaust_the_connection_limit() {
    let bench = Bench::at("2026-11-21T12:00:00Z", &[Series::dump(1)]).await;
    let (server, _ctx) = InProcess::start(&bench).await;
    let mut slow = Vec::new();
    for _ in 0..300 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: loc").await.unwrap();
        slow.push(stream);
    }
    let answer = client().get(format!("{}/livez", server.url)).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let newest = slow.last().unwrap().try_read(&mut [0]).unwrap_err();
    assert_eq!(newest.kind(), std::io::ErrorKind::WouldBlock, "the answer came only after the slow ones had ended");
}
