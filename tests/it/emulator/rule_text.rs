//! Fault rules as text.

use std::num::NonZeroU32;

use jiff::SignedDuration;
use moesync::{
    config::SourceKind,
    emulator::{ContentEncoding, Cut, Fault, Framing, OddJson, RedirectTo, Reset, Rule},
};
use reqwest::StatusCode;

#[test]
fn rules_are_read_from_text() {
    let rules = [
        ("html", Fault::Html.into()),
        (
            " status = 503 , times = 2 , path = Daily ",
            Rule {
                times: Some(2),
                path_contains: Some("Daily".to_owned()),
                ..Fault::Status { code: StatusCode::SERVICE_UNAVAILABLE, body: None }.into()
            },
        ),
        (
            r"status=500,body=a\, b\\c=d,skip=3",
            Rule {
                skip: 3,
                ..Fault::Status { code: StatusCode::INTERNAL_SERVER_ERROR, body: Some(r"a, b\c=d".to_owned()) }.into()
            },
        ),
        ("truncate=50%", Fault::Truncate { at: Cut::Percent(50), framing: Framing::ContentLength }.into()),
        ("truncate=7,framing=chunked", Fault::Truncate { at: Cut::Bytes(7), framing: Framing::Chunked }.into()),
        ("truncate=7,framing=close", Fault::Truncate { at: Cut::Bytes(7), framing: Framing::Close }.into()),
        ("slow=3", Fault::Slow { bytes_per_second: NonZeroU32::new(3).unwrap() }.into()),
        ("reset-mid-body=10%", Fault::ResetMidBody { at: Cut::Percent(10) }.into()),
        ("bit-flip", Fault::BitFlip { offset: None }.into()),
        ("bit-flip=9", Fault::BitFlip { offset: Some(9) }.into()),
        ("json-error", Fault::JsonError.into()),
        ("empty", Fault::Empty.into()),
        ("stall", Fault::Stall.into()),
        ("reset", Fault::Reset.into()),
        ("not-yet", Fault::NotYet.into()),
        ("unauthorized", Fault::Unauthorized.into()),
        ("redirect=storage", Fault::Redirect { to: RedirectTo::Storage, code: StatusCode::FOUND }.into()),
        ("rate-limited", Fault::RateLimited { retry_after: None, reset: None }.into()),
        (
            "rate-limited,until=30s",
            Fault::RateLimited { retry_after: None, reset: Some(Reset::After(SignedDuration::from_secs(30))) }.into(),
        ),
        (
            "rate-limited=7,until=0",
            Fault::RateLimited { retry_after: Some("7".to_owned()), reset: Some(Reset::Text("0".to_owned())) }.into(),
        ),
        ("firewall", Fault::Firewall { code: StatusCode::FORBIDDEN }.into()),
        ("firewall=400", Fault::Firewall { code: StatusCode::BAD_REQUEST }.into()),
        ("hide,page=2", Rule { page: Some(2), ..Fault::Hide { rows: None }.into() }),
        ("hide=3", Fault::Hide { rows: Some(3) }.into()),
        ("extra-total=5", Fault::ExtraTotal { by: NonZeroU32::new(5).unwrap() }.into()),
        ("odd-json=surrogate", Fault::OddJson(OddJson::LoneSurrogate).into()),
        (
            r"rate-limited=Wed\, 17 Feb 2021 12:05:00 GMT",
            Fault::RateLimited { retry_after: Some("Wed, 17 Feb 2021 12:05:00 GMT".to_owned()), reset: None }.into(),
        ),
        ("wrong-date=90s", Fault::WrongDate { offset: SignedDuration::from_secs(90) }.into()),
        ("content-encoding=gzip", Fault::ContentEncoding(ContentEncoding::Layer).into()),
        ("content-encoding=label", Fault::ContentEncoding(ContentEncoding::LabelOnly).into()),
        ("repeat,api=campaigns", Rule { api: Some(SourceKind::Campaigns), ..Fault::Repeat.into() }),
        ("shrink,page=3", Rule { page: Some(3), ..Fault::Shrink.into() }),
    ];
    for (text, rule) in rules {
        assert_eq!(text.parse::<Rule>(), Ok(rule), "{text}");
    }
}

#[test]
fn a_rule_that_cannot_be_read_says_why() {
    let texts = [
        "",
        "html,",
        "503",
        "times=2",
        "html,empty",
        "html,html",
        "html=1",
        "status",
        "status=200x",
        "status=101",
        "truncate=100%",
        "truncate=-1",
        "truncate=1,framing=none",
        "slow=0",
        "stall,times=0",
        "stall,skip=-1",
        "html,body=x",
        "empty,framing=close",
        "redirect=",
        "redirect=nowhere",
        "redirect=storage,code=301",
        "wrong-date=yesterday",
        "content-encoding=br",
        "bit-flip=x",
        "rate-limited=a\nb",
        "reset,path",
        "reset,api=search",
        "repeat,page=0",
        "firewall=404",
        "html,until=0",
        "hide=x",
        "extra-total=0",
        "odd-json=yes",
    ];
    let errors: String =
        texts.iter().map(|text| format!("{text:?}: {}\n", text.parse::<Rule>().unwrap_err())).collect();
    insta::assert_snapshot!(errors, @r##"
    "": `` lacks a word: a rule is written like `status=503,times=2`
    "html,": `html,` lacks a word: a rule is written like `status=503,times=2`
    "503": `503` is unknown: a rule is made of a fault (status, html, json-error, empty, truncate, slow, stall, reset, reset-mid-body, bit-flip, not-yet, redirect, rate-limited, unauthorized, wrong-date, content-encoding, firewall, repeat, shrink, hide, extra-total, odd-json) and details (path, api, page, times, skip, body, framing, code, until)
    "times=2": `times=2` says when but not what: add a fault (status, html, json-error, empty, truncate, slow, stall, reset, reset-mid-body, bit-flip, not-yet, redirect, rate-limited, unauthorized, wrong-date, content-encoding, firewall, repeat, shrink, hide, extra-total, odd-json)
    "html,empty": `html` and `empty` are two faults: give each a rule of its own
    "html,html": `html` is given twice
    "html=1": `html` takes no value, but `1` is given
    "status": `status` must be a status from 200 to 599, but has no value
    "status=200x": `status` must be a status from 200 to 599, not `200x`
    "status=101": `status` must be a status from 200 to 599, not `101`
    "truncate=100%": `truncate` must be a number of bytes, or a percentage from 0% to 99%, not `100%`
    "truncate=-1": `truncate` must be a number of bytes, or a percentage from 0% to 99%, not `-1`
    "truncate=1,framing=none": `framing` must be content-length, chunked or close, not `none`
    "slow=0": `slow` must be a whole number of bytes a second from 1, not `0`
    "stall,times=0": `times` must be a whole number from 1, not `0`
    "stall,skip=-1": `skip` must be a whole number, not `-1`
    "html,body=x": `body` goes with `status`, not with `html`
    "empty,framing=close": `framing` goes with `truncate`, not with `empty`
    "redirect=": `redirect` must be `storage` or a URL, not ``
    "redirect=nowhere": `redirect` must be `storage` or a URL, not `nowhere`
    "redirect=storage,code=301": `code` must be 302 or 307, not `301`
    "wrong-date=yesterday": `wrong-date` must be a span such as 90s, 8d or -2h, not `yesterday`
    "content-encoding=br": `content-encoding` must be gzip or label, not `br`
    "bit-flip=x": `bit-flip` must be the number of a byte, or nothing, not `x`
    "rate-limited=a\nb": `rate-limited` must be the text of a header, or nothing, not `a\nb`
    "reset,path": `path` must be a part of the path, but has no value
    "reset,api=search": `api` must be campaign_report, daily_dump, campaign_stats, campaigns, campaign_meta or executions, not `search`
    "repeat,page=0": `page` must be a whole number from 1, not `0`
    "firewall=404": `firewall` must be 400, 401 or 403, or nothing, not `404`
    "html,until=0": `until` goes with `rate-limited`, not with `html`
    "hide=x": `hide` must be a number of rows, or nothing, not `x`
    "extra-total=0": `extra-total` must be a whole number from 1, not `0`
    "odd-json=yes": `odd-json` must be bom, nan, utf8, duplicate, number or surrogate, not `yes`
    "##);
}
