//! Names, references, labels, tokens, certificates.

use proto::v1;
use tonic::Status;
use uuid::Uuid;

use super::{World, map};
use crate::support::{as_, csr, reason};

#[tokio::test]
async fn malformed_names_references_and_tokens_are_refused_and_change_nothing() {
    let world = World::new().await;
    let w = &world;
    let mut seen = Vec::new();
    let nobody = Uuid::from_u128(77).to_string();

    // Names, references, selectors, labels.
    case!(
        w,
        seen,
        "E_NAME",
        refused!(
            w,
            join_tokens_client::JoinTokensClient
                .create(v1::CreateJoinTokenRequest { host: "../web".into(), ..Default::default() })
        )
    );
    case!(
        w,
        seen,
        "E_LABELS",
        refused!(
            w,
            hosts_client::HostsClient.label(v1::LabelHostRequest {
                host: "web-1".into(),
                set: map(&[("a", "b,c=d")]),
                unset: vec![]
            })
        )
    );
    case!(
        w,
        seen,
        "E_SELECTOR",
        refused!(w, hosts_client::HostsClient.list(v1::ListHostsRequest { selector: "role".into() }))
    );
    case!(
        w,
        seen,
        "E_HOST_NOT_FOUND",
        refused!(w, hosts_client::HostsClient.show(v1::ShowHostRequest { host: "web-9".into() }))
    );
    case!(
        w,
        seen,
        "E_HOST_EXISTS",
        refused!(
            w,
            join_tokens_client::JoinTokensClient
                .create(v1::CreateJoinTokenRequest { host: "web-1".into(), ..Default::default() })
        )
    );
    case!(
        w,
        seen,
        "E_HOST_REACHABLE",
        refused!(w, hosts_client::HostsClient.remove(v1::RemoveHostRequest { host: "web-1".into(), force: false }))
    );
    case!(
        w,
        seen,
        "E_TARGET_REF",
        refused!(
            w,
            rollouts_client::RolloutsClient
                .start(v1::StartRolloutRequest { target: "bot".into(), ..Default::default() })
        )
    );
    case!(
        w,
        seen,
        "E_TARGET_NOT_FOUND",
        refused!(
            w,
            rollouts_client::RolloutsClient
                .start(v1::StartRolloutRequest { target: "bot/moon".into(), ..Default::default() })
        )
    );
    case!(
        w,
        seen,
        "E_APP_NOT_FOUND",
        refused!(w, apps_client::AppsClient.show(v1::ShowAppRequest { app: "unknown".into() }))
    );
    case!(
        w,
        seen,
        "E_TOO_LARGE",
        refused!(w, hosts_client::HostsClient.list(v1::ListHostsRequest { selector: "a".repeat(5000) }))
    );

    // Tokens.
    case!(
        w,
        seen,
        "E_ROLE",
        refused!(
            w,
            api_tokens_client::ApiTokensClient.create(v1::CreateApiTokenRequest {
                principal: "asha".into(),
                role: "root".into(),
                ..Default::default()
            })
        )
    );
    case!(
        w,
        seen,
        "E_SCOPE",
        refused!(
            w,
            api_tokens_client::ApiTokensClient.create(v1::CreateApiTokenRequest {
                principal: "asha".into(),
                role: "developer".into(),
                scope: "a/b/c".into(),
                ..Default::default()
            })
        )
    );
    case!(
        w,
        seen,
        "E_TTL",
        refused!(
            w,
            api_tokens_client::ApiTokensClient.create(v1::CreateApiTokenRequest {
                principal: "asha".into(),
                role: "developer".into(),
                ttl_micros: u64::MAX,
                ..Default::default()
            })
        )
    );
    case!(
        w,
        seen,
        "E_IDEMPOTENCY_KEY",
        refused!(
            w,
            api_tokens_client::ApiTokensClient.create(v1::CreateApiTokenRequest {
                principal: "asha".into(),
                role: "developer".into(),
                idempotency_key: "a b".into(),
                ..Default::default()
            })
        )
    );
    case!(
        w,
        seen,
        "E_ID",
        refused!(w, api_tokens_client::ApiTokensClient.revoke(v1::RevokeApiTokenRequest { id: "' OR 1=1 --".into() }))
    );
    case!(
        w,
        seen,
        "E_API_TOKEN_NOT_FOUND",
        refused!(w, api_tokens_client::ApiTokensClient.revoke(v1::RevokeApiTokenRequest { id: nobody.clone() }))
    );
    case!(
        w,
        seen,
        "E_JOIN_TOKEN_NOT_FOUND",
        refused!(w, join_tokens_client::JoinTokensClient.revoke(v1::RevokeJoinTokenRequest { id: nobody.clone() }))
    );

    // Who calls.
    let anonymous =
        v1::hosts_client::HostsClient::new(w.channel.clone()).list(v1::ListHostsRequest::default()).await.unwrap_err();
    case!(w, seen, "E_UNAUTHENTICATED", anonymous);
    let viewer = w.server.token("vera", "viewer", "").await;
    let drain = v1::DrainHostRequest { host: "web-1".into() };
    let denied = v1::hosts_client::HostsClient::new(w.channel.clone()).drain(as_(&viewer, drain)).await.unwrap_err();
    case!(w, seen, "E_PERMISSION_DENIED", denied);
    let mut agents = v1::agents_client::AgentsClient::new(w.channel.clone());
    case!(
        w,
        seen,
        "E_JOIN_TOKEN_INVALID",
        agents.join(v1::JoinRequest { token: "jt_x".into(), ..Default::default() }).await.unwrap_err()
    );
    case!(
        w,
        seen,
        "E_CERTIFICATE",
        agents.renew(v1::RenewRequest { csr: csr(&rcgen::KeyPair::generate().unwrap()) }).await.unwrap_err()
    );
    let mut as_host = v1::agents_client::AgentsClient::new(w.server.connect(Some(&w.host.identity)).await);
    case!(w, seen, "E_CSR", as_host.renew(v1::RenewRequest { csr: b"not a request".to_vec() }).await.unwrap_err());
    case!(
        w,
        seen,
        "E_ARTIFACT_NOT_FOUND",
        as_host.fetch(v1::FetchRequest { digest: "0".repeat(64), ..Default::default() }).await.unwrap_err()
    );
    case!(
        w,
        seen,
        "E_FIELD",
        as_host.fetch(v1::FetchRequest { digest: "../../key".into(), ..Default::default() }).await.unwrap_err()
    );
    assert_eq!(seen.len(), 24);
}
