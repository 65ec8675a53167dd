//! Networks and volumes.

use std::collections::HashMap;

use bollard::Docker;
use bollard::models::{Ipam, IpamConfig, NetworkConnectRequest, NetworkCreateRequest, VolumeCreateRequest};
use bollard::query_parameters::{ListNetworksOptionsBuilder, ListVolumesOptionsBuilder, RemoveVolumeOptionsBuilder};

use super::super::spec::HOST;
use super::super::{Error, FoundVolume, Labels, NetworkSpec, Result, VolumeSpec};
use super::{failed, missing_is_fine};

pub(super) async fn create_network(client: &Docker, spec: &NetworkSpec) -> Result<()> {
    let request = NetworkCreateRequest {
        name: spec.name.clone(),
        driver: Some("bridge".to_owned()),
        internal: Some(spec.internal),
        labels: Some(spec.labels.to_map().into_iter().collect()),
        options: Some(HashMap::from([("com.docker.network.bridge.name".to_owned(), spec.bridge.clone())])),
        ipam: Some(Ipam {
            config: Some(vec![IpamConfig { subnet: Some(spec.subnet.clone()), ..IpamConfig::default() }]),
            ..Ipam::default()
        }),
        ..NetworkCreateRequest::default()
    };
    match client.create_network(request).await.map_err(|why| failed(&spec.name, why)) {
        Ok(_) => Ok(()),
        // Bridges are named after their network, and are there before the network is shown.
        Err(Error::Refused(message))
            if message.contains("already exists") || message.contains("networks have same bridge name") =>
        {
            Err(Error::NameInUse(spec.name.clone()))
        }
        Err(other) => Err(other),
    }
}

pub(super) async fn network(client: &Docker, name: &str) -> Result<Option<Option<Labels>>> {
    match client.inspect_network(name, None).await.map_err(|why| failed(name, why)) {
        Ok(found) => {
            let labels = found.labels.unwrap_or_default();
            Ok(Some(Labels::from_map(|key| labels.get(key))))
        }
        Err(Error::NotFound(_)) => Ok(None),
        Err(Error::Refused(message)) if message.contains("not found") => Ok(None),
        Err(other) => Err(other),
    }
}

pub(super) async fn subnets(client: &Docker) -> Result<Vec<String>> {
    let all = client.list_networks(None).await.map_err(|why| failed("networks", why))?;
    let configs = all.into_iter().filter_map(|network| network.ipam?.config).flatten();
    Ok(configs.filter_map(|config| config.subnet).collect())
}

fn own(host: &str) -> HashMap<String, Vec<String>> {
    HashMap::from([("label".to_owned(), vec![format!("{HOST}={host}")])])
}

pub(super) async fn networks(client: &Docker, host: &str) -> Result<Vec<(String, Labels)>> {
    let options = ListNetworksOptionsBuilder::default().filters(&own(host)).build();
    let all = client.list_networks(Some(options)).await.map_err(|why| failed("networks", why))?;
    Ok(all
        .into_iter()
        .filter_map(|one| {
            let labels = one.labels.unwrap_or_default();
            Some((one.name?, Labels::from_map(|key| labels.get(key))?))
        })
        .collect())
}

pub(super) async fn connect(client: &Docker, id: &str, network: &str) -> Result<()> {
    let request = NetworkConnectRequest { container: id.to_owned(), ..NetworkConnectRequest::default() };
    match client.connect_network(network, request).await.map_err(|why| failed(network, why)) {
        Err(Error::Refused(message)) if message.contains("already exists in network") => Ok(()),
        other => other,
    }
}

pub(super) async fn remove_network(client: &Docker, name: &str) -> Result<()> {
    match missing_is_fine(client.remove_network(name).await.map_err(|why| failed(name, why))) {
        Err(Error::Refused(message)) if message.contains("not found") => Ok(()),
        other => other,
    }
}

pub(super) async fn create_volume(client: &Docker, spec: &VolumeSpec) -> Result<()> {
    let folder = spec.folder.to_string_lossy().into_owned();
    let options = [("type", "none".to_owned()), ("o", "bind".to_owned()), ("device", folder)];
    let request = VolumeCreateRequest {
        name: Some(spec.name.clone()),
        driver: Some("local".to_owned()),
        driver_opts: Some(options.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        labels: Some(spec.labels.to_map().into_iter().collect()),
        ..VolumeCreateRequest::default()
    };
    client.create_volume(request).await.map(|_| ()).map_err(|why| failed(&spec.name, why))
}

pub(super) async fn volume(client: &Docker, name: &str) -> Result<Option<FoundVolume>> {
    match client.inspect_volume(name).await.map_err(|why| failed(name, why)) {
        Ok(found) => Ok(Some(match Labels::from_map(|key| found.labels.get(key)) {
            Some(labels) => FoundVolume::Labelled(labels),
            None if is_unfinished(&found) => FoundVolume::Unfinished,
            None => FoundVolume::Foreign,
        })),
        Err(Error::NotFound(_)) => Ok(None),
        Err(Error::Refused(message)) if message.to_lowercase().contains("no such volume") => Ok(None),
        Err(other) => Err(other),
    }
}

/// The engine makes a volume's folder first, and remembers labels and options last.
fn is_unfinished(found: &bollard::models::Volume) -> bool {
    let bare = found.labels.is_empty() && found.options.is_empty() && found.driver == "local";
    bare && std::fs::read_dir(&found.mountpoint).is_ok_and(|mut entries| entries.next().is_none())
}

pub(super) async fn volumes(client: &Docker, host: &str) -> Result<Vec<(String, Labels)>> {
    let options = ListVolumesOptionsBuilder::default().filters(&own(host)).build();
    let all = client.list_volumes(Some(options)).await.map_err(|why| failed("volumes", why))?;
    Ok(all
        .volumes
        .unwrap_or_default()
        .into_iter()
        .filter_map(|one| Labels::from_map(|key| one.labels.get(key)).map(|labels| (one.name, labels)))
        .collect())
}

pub(super) async fn remove_volume(client: &Docker, name: &str) -> Result<()> {
    let options = RemoveVolumeOptionsBuilder::default().force(true).build();
    missing_is_fine(client.remove_volume(name, Some(options)).await.map_err(|why| failed(name, why)))
}
