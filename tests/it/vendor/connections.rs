//! Connections: certificates, TLS versions, proxies, IPv6, and servers that cannot be reached.

use std::io::Write;

use moesync::{config::Network, moengage::Client, outcome::Outcome};

use super::{
    SECRET, ca_file, daily, fetch, fetch_with, header, limits, named_file, network, report,
    server::{Authority, Server, Step, answer},
    trusting,
};

#[tokio::test]
async fn a_private_authority_works_once_it_is_configured_and_is_requested_before() {
    let authority = Authority::new();
    let server = Server::tls(authority.acceptor(), |_| answer("200 OK", "", b"PK")).await;
    assert_eq!(fetch_with(&trusting(&authority), &report(&server.url())).await.unwrap(), b"PK");
    let failure = fetch(&report(&server.url())).await.unwrap_err();
    assert_eq!((failure.outcome, failure.evidence.http_status), (Outcome::Unavailable, None));
    assert!(failure.message.contains("network.ca_file"), "{failure}");
}

#[tokio::test]
async fn an_expired_certificate_is_named_in_the_message() {
    let authority = Authority::new();
    let server = Server::tls(authority.expired(), |_| answer("200 OK", "", b"PK")).await;
    let failure = fetch_with(&trusting(&authority), &report(&server.url())).await.unwrap_err();
    assert_eq!(failure.outcome, Outcome::Unavailable);
    assert!(failure.message.contains("certificate expired"), "{failure}");
    assert!(failure.message.contains(&format!("could not connect to {}", server.url())), "{failure}");
}

#[tokio::test]
async fn a_server_that_only_knows_tls_1_1_is_refused() {
    // Alert `protocol_version`: what such a server answers to a TLS 1.2 greeting.
    let server = Server::deaf(vec![0x15, 3, 2, 0, 2, 2, 70]).await;
    let failure = fetch(&report(&server.url())).await.unwrap_err();
    assert_eq!(failure.outcome, Outcome::Unavailable);
    assert!(failure.message.contains("TLS: "), "{failure}");
    assert!(failure.message.contains("ProtocolVersion"), "{failure}");
}

#[tokio::test]
async fn a_ca_file_without_certificates_is_a_clear_error() {
    let empty = tempfile::NamedTempFile::new().unwrap();
    let mut broken = tempfile::NamedTempFile::new().unwrap();
    broken.write_all(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    for path in [empty.path(), broken.path(), std::path::Path::new("/nowhere/ca.pem")] {
        let error = Client::new(&Network { ca_file: Some(named_file(path)), ..network() }, &limits()).err().unwrap();
        assert!(error.to_string().contains("moesync.toml:9: network.ca_file"), "{error}");
    }
}

#[tokio::test]
async fn a_proxy_sees_whole_urls_and_its_credentials() {
    let proxy = Server::start(|_| answer("200 OK", "", b"PK")).await;
    for (userinfo, expected) in [("", None), ("user:p%40ss@", Some("Basic dXNlcjpwQHNz"))] {
        let url = proxy.url().replace("http://", &format!("http://{userinfo}")).parse().unwrap();
        let client = Client::new(&Network { proxy: Some(url), ..network() }, &limits()).unwrap();
        fetch_with(&client, &report("http://vendor.invalid")).await.unwrap();
        let request = proxy.requests().pop().unwrap();
        assert!(request.starts_with("GET http://vendor.invalid/campaign_reports/"), "{request}");
        assert_eq!(header(&request, "proxy-authorization"), expected);
    }
}

#[tokio::test]
async fn https_goes_through_a_proxy_that_never_sees_inside() {
    let authority = Authority::new();
    let vendor = Server::tls(authority.acceptor(), |_| answer("200 OK", "", b"PK")).await;
    let to = vendor.address;
    let proxy = Server::start(move |request| match header(request, "proxy-authorization") {
        Some("Basic dXNlcjpwQHNz") => vec![Step::Tunnel(to)],
        _ => answer("407 Proxy Authentication Required", "", b""),
    })
    .await;
    let file = ca_file(&authority);
    for (userinfo, reached) in [("user:p%40ss@", true), ("", false)] {
        let url = proxy.url().replace("http://", &format!("http://{userinfo}")).parse().unwrap();
        let network = Network { proxy: Some(url), ca_file: Some(named_file(file.path())), ..network() };
        let client = Client::new(&network, &limits()).unwrap();
        let fetched = fetch_with(&client, &report(&vendor.url())).await;
        if reached {
            assert_eq!(fetched.unwrap(), b"PK");
        } else {
            let failure = fetched.unwrap_err();
            assert_eq!(failure.outcome, Outcome::Unavailable);
            assert!(failure.message.contains("407") && failure.message.contains("network.proxy"), "{failure}");
        }
    }
    for request in proxy.requests() {
        assert!(request.starts_with(&format!("CONNECT {to} HTTP/1.1\r\n")), "{request}");
        assert!(!request.contains("signature"), "{request}");
    }
}

#[tokio::test]
async fn a_proxy_that_is_down_or_refuses_is_named_without_its_password() {
    let unwilling = Server::start(|_| answer("403 Forbidden", "", b"")).await;
    for address in [unwilling.address.to_string(), "127.0.0.1:1".into()] {
        let url = format!("http://user:{SECRET}@{address}").parse().unwrap();
        let client = Client::new(&Network { proxy: Some(url), ..network() }, &limits()).unwrap();
        let failure = fetch_with(&client, &report("https://vendor.invalid")).await.unwrap_err();
        assert_eq!(failure.outcome, Outcome::Unavailable);
        assert!(failure.message.contains(&format!("through the proxy http://{address}")), "{failure}");
        assert!(!format!("{failure:?}").contains(SECRET), "{failure:?}");
    }
    let socks = Network { proxy: Some("socks5://127.0.0.1:1".parse().unwrap()), ..network() };
    assert!(Client::new(&socks, &limits()).err().unwrap().to_string().contains("network.proxy"));
}

#[tokio::test]
async fn a_host_that_only_has_ipv6_is_reached() {
    let server = Server::bound_to("[::1]:0", |_| answer("200 OK", "", b"PK")).await;
    assert!(server.url().starts_with("http://[::1]:"));
    assert_eq!(fetch(&report(&server.url())).await.unwrap(), b"PK");
}

#[tokio::test]
async fn failures_to_connect_say_what_failed() {
    let unnamed = fetch(&report("https://nonexistent.invalid")).await.unwrap_err();
    assert!(
        unnamed.message.contains("could not connect to https://nonexistent.invalid: its name has no address"),
        "{unnamed}"
    );
    let refused = fetch(&daily("http://127.0.0.1:1")).await.unwrap_err();
    assert!(refused.message.contains("could not connect to http://127.0.0.1:1: Connection refused"), "{refused}");
    let closed = Server::start(|_| vec![]).await;
    let closed = fetch(&daily(&closed.url())).await.unwrap_err();
    assert!(closed.message.contains("was lost before the response"), "{closed}");
    for failure in [unnamed, refused, closed] {
        assert_eq!(
            (failure.outcome, failure.evidence.http_status, failure.evidence.seen),
            (Outcome::Unavailable, None, false)
        );
        assert!(!format!("{failure:?}").contains("Signature="), "{failure:?}");
    }
}
