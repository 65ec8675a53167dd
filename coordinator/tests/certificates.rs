//! Joining, renewing, and every way in which a certificate is not good enough.

use std::time::Duration;

use coordinator::app::Ctx;
use coordinator::ca::AGENT_LIFETIME;
use coordinator::error::Error;
use coordinator::store::host::Certificate;
use domain::ids::HostId;
use domain::time::Timestamp;
use proto::v1;
use proto::v1::agents_client::AgentsClient;
use rcgen::KeyPair;
use tonic::Code;
use transport::{Identity, Options, Trust};

use crate::support::{Host, Server, as_, csr, facts, hello, reason};

const DAY: i64 = 86_400 * 1_000_000;

/// Gives a host a certificate that was made so long ago, as if it had slept since.
async fn aged(server: &Server, host: &Host, days: i64) -> Host {
    let app = &server.running.api.app;
    let (key, id): (KeyPair, HostId) = (KeyPair::generate().unwrap(), host.id.parse().unwrap());
    let then = Timestamp(app.now().0 - days * DAY);
    let issued = app.ca.agent(&csr(&key), app.store.fence().incarnation_id, id, then, AGENT_LIFETIME).unwrap();
    let held = Certificate {
        serial: issued.serial.clone(),
        fingerprint: issued.fingerprint.clone(),
        not_after: issued.not_after,
        revoked: false,
    };
    edit(app, id, move |row| row.certificate = Some(held)).await;
    let identity = Identity::new(issued.chain, key.serialize_der()).unwrap();
    Host { id: host.id.clone(), identity }
}

async fn edit(ctx: &Ctx, id: HostId, change: impl FnOnce(&mut coordinator::store::host::HostRow) + Send) {
    ctx.store
        .write(|tx| {
            Box::pin(async move {
                let mut row = tx.host_get(id).await?.unwrap();
                change(&mut row);
                Ok::<_, Error>(tx.host_put(&row).await?)
            })
        })
        .await
        .unwrap();
}

async fn renew(server: &Server, host: &Host, key: &KeyPair) -> Result<Host, tonic::Status> {
    let mut client = AgentsClient::new(server.connect(Some(&host.identity)).await);
    let joined = client.renew(v1::RenewRequest { csr: csr(key) }).await?.into_inner();
    Ok(Host::new(joined, key))
}

/// Whether the host may fetch: a call that needs a good certificate, and that finds nothing.
async fn is_good(server: &Server, host: &Host) -> bool {
    let mut client = AgentsClient::new(server.connect(Some(&host.identity)).await);
    let ask = v1::FetchRequest { digest: "0".repeat(64), ..Default::default() };
    let status = client.fetch(ask).await.unwrap_err();
    match reason(&status).as_str() {
        "E_ARTIFACT_NOT_FOUND" => true,
        "E_UNAUTHENTICATED" => false,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_host_joins_with_the_pin_alone_and_gets_the_name_and_labels_of_its_token() {
    let server = Server::start().await;
    let token = server.join_token("web-1", "app=bot").await;
    let pin = transport::join::JoinSecret::parse(&token).unwrap().pin;
    let endpoint = server.running.address.to_string();
    let channel = transport::connect(&endpoint, &Trust::Pin(pin), None, Options::default()).await.unwrap();
    let key = KeyPair::generate().unwrap();
    let ask = v1::JoinRequest { token, csr: csr(&key), facts: Some(facts()) };
    let joined = AgentsClient::new(channel).join(ask).await.unwrap().into_inner();
    assert_eq!(joined.host_name, "web-1");
    let host = Host::new(joined, &key);
    assert!(is_good(&server, &host).await);
    let mut hosts = v1::hosts_client::HostsClient::new(server.channel().await);
    let ask = v1::ShowHostRequest { host: "web-1".to_owned() };
    let shown = hosts.show(as_(&server.admin, ask)).await.unwrap().into_inner();
    assert_eq!(shown.labels.get("app").map(String::as_str), Some("bot"));
}

#[tokio::test]
async fn another_pin_or_another_ca_is_not_trusted() {
    let (server, other) = (Server::start().await, Server::start().await);
    let endpoint = server.running.address.to_string();
    for trust in [Trust::Pin([1; 32]), Trust::Pin(other.running.pin), other.trust()] {
        let error = transport::connect(&endpoint, &trust, None, Options::default()).await.unwrap_err();
        assert!(matches!(error, transport::Error::Connect { refused: true, .. }), "{error}");
    }
}

#[tokio::test]
async fn every_bad_join_token_gets_the_same_answer_and_the_ledger_says_which() {
    let server = Server::start().await;
    let good = server.join_token("web-1", "").await;
    let spent = server.join_token("web-2", "").await;
    let wrong = {
        let (start, pin) = good.rsplit_once('_').unwrap();
        format!("{}{}_{pin}", &start[..start.len() - 4], "AAAA")
    };
    let unknown = server.join_token("web-3", "").await.replacen("jt_0", "jt_f", 1);
    let mut agents = AgentsClient::new(server.channel().await);
    let first = v1::JoinRequest { token: spent.clone(), csr: csr(&KeyPair::generate().unwrap()), facts: None };
    agents.join(first).await.unwrap();
    let mut messages = std::collections::BTreeSet::new();
    for token in [wrong, unknown, spent, "jt_".to_owned(), String::new(), "x".repeat(10_000)] {
        let ask = v1::JoinRequest { token, csr: csr(&KeyPair::generate().unwrap()), facts: None };
        let status = agents.join(ask).await.unwrap_err();
        assert_eq!((reason(&status).as_str(), status.code()), ("E_JOIN_TOKEN_INVALID", Code::Unauthenticated));
        messages.insert(status.message().to_owned());
    }
    assert_eq!(messages.len(), 1, "{messages:?}");
    let causes: Vec<String> = server.events("join-token.refused").await.into_iter().map(|event| event.text).collect();
    for (cause, expected) in
        causes.iter().zip(["wrong secret", "unknown", "used before", "malformed", "malformed", "malformed"])
    {
        assert!(cause.starts_with(expected), "{cause}: {expected}");
    }
    assert_eq!(causes.len(), 6);
}

#[tokio::test]
async fn a_join_whose_answer_was_lost_can_be_repeated_with_the_same_key_and_no_other() {
    let server = Server::start().await;
    let token = server.join_token("web-1", "").await;
    let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut agents = AgentsClient::new(server.channel().await);
    let ask = |key: &KeyPair| v1::JoinRequest { token: token.clone(), csr: csr(key), facts: Some(facts()) };
    let first = agents.join(ask(&key)).await.unwrap().into_inner();
    let again = agents.join(ask(&key)).await.unwrap().into_inner();
    assert_eq!(first.host_id, again.host_id);
    assert_eq!(reason(&agents.join(ask(&other)).await.unwrap_err()), "E_JOIN_TOKEN_INVALID");
    assert!(is_good(&server, &Host::new(again, &key)).await);
}

#[tokio::test]
async fn an_expired_certificate_renews_and_does_nothing_else() {
    let server = Server::start().await;
    let host = server.host("box", "").await;
    let slept = aged(&server, &host, 30).await;
    assert!(!is_good(&server, &slept).await);
    let mut client = AgentsClient::new(server.connect(Some(&slept.identity)).await);
    let hello = v1::AgentMessage { message: Some(v1::agent_message::Message::Hello(hello())) };
    let refused = client.session(tokio_stream::iter([hello])).await.unwrap_err();
    assert_eq!(reason(&refused), "E_UNAUTHENTICATED");
    let renewed = renew(&server, &slept, &KeyPair::generate().unwrap()).await.unwrap();
    assert!(is_good(&server, &renewed).await);
}

#[tokio::test]
async fn a_certificate_that_expired_more_than_90_days_ago_does_not_renew() {
    let server = Server::start().await;
    let host = server.host("box", "").await;
    let slept = aged(&server, &host, 92).await;
    let status = renew(&server, &slept, &KeyPair::generate().unwrap()).await.unwrap_err();
    assert_eq!(reason(&status), "E_CERTIFICATE");
    assert!(server.events("host.renew_refused").await[0].text.contains("more than 90"));
}

#[tokio::test]
async fn a_renewal_whose_answer_was_lost_can_be_repeated_until_the_new_certificate_is_used() {
    let server = Server::start().await;
    let host = server.host("box", "").await;
    renew(&server, &host, &KeyPair::generate().unwrap()).await.unwrap();
    // The answer never came: the old certificate is still good, and renews again.
    assert!(is_good(&server, &host).await);
    let renewed = renew(&server, &host, &KeyPair::generate().unwrap()).await.unwrap();
    let session = renewed.ready(&server).await;
    assert!(!is_good(&server, &host).await);
    drop(session);
}

#[tokio::test]
async fn a_copied_certificate_is_worthless_once_the_host_has_used_its_next_one() {
    let server = Server::start().await;
    let host = server.host("box", "").await;
    let clone = host.clone();
    let renewed = renew(&server, &host, &KeyPair::generate().unwrap()).await.unwrap();
    drop(renewed.ready(&server).await);
    assert!(!is_good(&server, &clone).await);
    let status = renew(&server, &clone, &KeyPair::generate().unwrap()).await.unwrap_err();
    assert_eq!(reason(&status), "E_CERTIFICATE");
    let told = &server.events("host.renew_refused").await[0].text;
    assert!(told.contains("newer certificate"), "{told}");
    assert!(is_good(&server, &renewed).await);
}

#[tokio::test]
async fn a_revoked_certificate_and_that_of_a_removed_host_are_refused() {
    let server = Server::start().await;
    let (revoked, removed) = (server.host("a", "").await, server.host("b", "").await);
    edit(&server.running.api.app, revoked.id.parse().unwrap(), |row| {
        if let Some(held) = &mut row.certificate {
            held.revoked = true;
        }
    })
    .await;
    let mut hosts = v1::hosts_client::HostsClient::new(server.channel().await);
    hosts.remove(as_(&server.admin, v1::RemoveHostRequest { host: "b".to_owned(), force: true })).await.unwrap();
    for host in [&revoked, &removed] {
        assert!(!is_good(&server, host).await);
        assert_eq!(reason(&renew(&server, host, &KeyPair::generate().unwrap()).await.unwrap_err()), "E_CERTIFICATE");
    }
}

#[tokio::test]
async fn a_certificate_of_another_cluster_is_refused_in_the_handshake_also_when_it_has_expired() {
    let (server, other) = (Server::start().await, Server::start().await);
    let (host, foreign) = (server.host("box", "").await, other.host("box", "").await);
    let expired = aged(&other, &foreign, 5).await;
    assert!(is_good(&server, &host).await);
    for identity in [&foreign.identity, &expired.identity] {
        let endpoint = server.running.address.to_string();
        let connected = transport::connect(&endpoint, &server.trust(), Some(identity), Options::default()).await;
        // TLS 1.3 lets the client finish first: then the first call fails instead.
        let refused = match connected {
            Err(_) => true,
            Ok(channel) => {
                let mut client = AgentsClient::new(channel);
                let call = client.renew(v1::RenewRequest { csr: csr(&KeyPair::generate().unwrap()) });
                let status = tokio::time::timeout(Duration::from_secs(10), call).await.unwrap().unwrap_err();
                matches!(status.code(), Code::Unavailable | Code::Unknown)
            }
        };
        assert!(refused);
    }
}
