//! Hosts in SQL.

use async_trait::async_trait;
use domain::host::Host;
use domain::ids::{HostId, RolloutId};
use domain::name::Name;

use super::super::error::Result;
use super::super::host::{Certificate, HostReads, HostRow, HostWrites};
use super::{Columns, FromRow, SqlTx, Value, next_version, values};

impl FromRow for HostRow {
    const TABLE: &'static str = "hosts";
    const KEY: &'static [&'static str] = &["id"];

    fn from_row(row: &Columns<'_>) -> Result<Self> {
        Ok(Self {
            project: row.text("project")?,
            principal: row.parse_or_null("principal")?,
            host: Host {
                id: row.parse("id")?,
                name: row.name("name")?,
                labels: row.json("labels")?,
                draining: row.flag("draining")?,
                facts: row.json("facts")?,
                joined_at: row.at("joined_at")?,
                seen_at: row.at_or_null("seen_at")?,
                liveness: row.word("liveness")?,
            },
            since: row.at("since")?,
            certificate: certificate(row)?,
            version: row.number("version")?,
        })
    }
}

fn certificate(row: &Columns<'_>) -> Result<Option<Certificate>> {
    let Some(serial) = row.text_or_null("certificate_serial")? else { return Ok(None) };
    Ok(Some(Certificate {
        serial,
        fingerprint: row.digest("certificate_fingerprint")?,
        not_after: row.at("certificate_not_after")?,
        revoked: row.flag("certificate_revoked")?,
    }))
}

#[async_trait]
impl HostReads for SqlTx {
    async fn host_get(&mut self, id: HostId) -> Result<Option<HostRow>> {
        self.one("SELECT * FROM hosts WHERE id = $1", values![id]).await
    }

    async fn host_by_name(&mut self, project: &str, name: &Name) -> Result<Option<HostRow>> {
        self.one("SELECT * FROM hosts WHERE project = $1 AND name = $2", values![project, name]).await
    }

    async fn host_list(&mut self, project: &str) -> Result<Vec<HostRow>> {
        self.list("SELECT * FROM hosts WHERE project = $1 ORDER BY name", values![project]).await
    }

    async fn host_list_of_rollout(&mut self, rollout: RolloutId) -> Result<Vec<HostRow>> {
        let sql = "SELECT * FROM hosts WHERE id IN (SELECT executor FROM rollout_steps WHERE rollout = $1) ORDER BY id";
        self.list(sql, values![rollout]).await
    }

    async fn host_list_all(&mut self) -> Result<Vec<HostRow>> {
        self.list("SELECT * FROM hosts ORDER BY id", values![]).await
    }
}

#[async_trait]
impl HostWrites for SqlTx {
    async fn host_put(&mut self, row: &HostRow) -> Result<u64> {
        let host = &row.host;
        let version = next_version(row.version);
        let certificate = row.certificate.as_ref();
        let changing = values![
            host.id,
            Value::json(&host.labels),
            host.draining,
            Value::json(&host.facts),
            host.seen_at,
            Value::word(host.liveness),
            row.since,
            certificate.map(|certificate| certificate.serial.clone()),
            certificate.map(|certificate| &certificate.fingerprint),
            certificate.map(|certificate| certificate.not_after),
            certificate.is_some_and(|certificate| certificate.revoked),
            version,
        ];
        if row.version == 0 {
            let mut values = changing;
            values.extend(values![&row.project, row.principal, &host.name, host.joined_at]);
            self.insert(
                "hosts",
                &host.name,
                "INSERT INTO hosts (id, labels, draining, facts, seen_at, liveness, since, certificate_serial, \
                 certificate_fingerprint, certificate_not_after, certificate_revoked, version, project, principal, \
                 name, joined_at) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16) \
                 ON CONFLICT DO NOTHING",
                values,
            )
            .await?;
        } else {
            let mut values = changing;
            values.extend(values![row.version]);
            self.update(
                "hosts",
                host.id,
                "UPDATE hosts SET labels = $2, draining = $3, facts = $4, seen_at = $5, liveness = $6, since = $7, \
                 certificate_serial = $8, certificate_fingerprint = $9, certificate_not_after = $10, \
                 certificate_revoked = $11, version = $12 WHERE id = $1 AND version = $13",
                values,
            )
            .await?;
        }
        Ok(version)
    }

    async fn host_delete(&mut self, id: HostId) -> Result<bool> {
        self.execute("members", "DELETE FROM members WHERE host = $1", values![id]).await?;
        Ok(self.execute("hosts", "DELETE FROM hosts WHERE id = $1", values![id]).await? > 0)
    }
}
