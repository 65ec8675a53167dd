//! What an environment reaches: its own services, and nothing else that it did not ask for.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tests::harness::cluster::Cluster;
use tests::harness::condition::{SOON, eventually};
use tests::harness::host::Host;
use tests::harness::real;

const STACK: &str = r#"services:
  db:
    image: postgres:15
    environment: { POSTGRES_PASSWORD: secret, STAND_IN_COPIES: 1 }
    ports: ["5432:5432"]
  client:
    image: redis:7
    depends_on: { db: { condition: service_healthy } }
  out:
    image: redis:7
    x-muster: { egress: true }
"#;

fn folder(cluster: &Cluster, name: &str) -> PathBuf {
    let folder = cluster.folder().join(name);
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join("compose.yaml"), STACK).expect("a stack file");
    folder
}

/// An environment that is up.
struct Place<'a> {
    host: &'a Host,
    short: String,
    shown: Value,
}

fn up<'a>(cluster: &Cluster, host: &'a Host, folder: &Path) -> Place<'a> {
    let here =
        |words: &[&str]| cluster.muster(words).by("asha").within(folder).env("MUSTER_AGENT_SOCKET", host.socket()).ok();
    here(&["env", "up", "--host", &host.name]);
    let shown: Value = cluster.muster(&["env", "show"]).by("asha").within(folder).json();
    let notices = shown["notices"].to_string();
    assert!(!notices.contains("not enforced"), "{notices}");
    let id: String = shown["id"].as_str().unwrap_or_default().chars().filter(|c| *c != '-').collect();
    Place { host, short: id.get(id.len() - 12..).unwrap_or_default().to_owned(), shown }
}

impl Place<'_> {
    fn container(&self, service: &str) -> String {
        format!("muster-{}-{service}", self.short)
    }

    fn inside(&self, service: &str, words: &[&str]) -> Result<String, String> {
        self.host.engine.try_run(&[&["exec", &self.container(service)], words].concat())
    }

    /// Those of `addresses` (`HOST PORT`) to which a service gets a TCP connection within a second.
    fn reached(&self, service: &str, addresses: &[String]) -> Vec<String> {
        const TRY: &str = r#"for one in "$@"; do set -- $one
            (timeout 1 bash -c "</dev/tcp/$1/$2" 2>/dev/null && echo "$one") & done; wait"#;
        let mut words = vec!["bash", "-c", TRY, "try"];
        words.extend(addresses.iter().map(String::as_str));
        let told = self.inside(service, &words).expect("bash runs in the container");
        let mut reached: Vec<String> = told.lines().map(str::to_owned).collect();
        reached.sort();
        reached
    }

    /// The answer of its database to a client in a container of its own on its network.
    fn query(&self, sql: &str) -> Result<String, String> {
        let services = self.shown["services"].as_array().expect("services");
        let db = services.iter().find(|service| service["name"] == "db").expect("the database");
        let password = db["variables"]["DB_PASSWORD"].as_str().expect("a password");
        let network = format!("muster-{}", self.short);
        let login = format!("PGPASSWORD={password}");
        let psql = ["postgres:15", "psql", "-h", "db", "-U", "postgres", "-Atc", sql];
        self.host.engine.try_run(&[&["run", "--rm", "--network", &network, "-e", &login], psql.as_slice()].concat())
    }

    fn networks(&self) -> Vec<Value> {
        let names = [format!("muster-{}", self.short), format!("muster-{}-out", self.short)];
        let inspect = |name: &String| -> Option<Value> {
            let all: Value = serde_json::from_str(&self.host.engine.run(&["network", "inspect", name])).ok()?;
            all.get(0).cloned()
        };
        names.iter().filter_map(inspect).collect()
    }

    /// The first address of each network: the host's own on that bridge.
    fn gateways(&self) -> Vec<String> {
        let gateway = |network: &Value| -> Option<String> {
            let subnet = network["IPAM"]["Config"][0]["Subnet"].as_str()?;
            let base: std::net::Ipv4Addr = subnet.split('/').next()?.parse().ok()?;
            Some(std::net::Ipv4Addr::from(u32::from(base) + 1).to_string())
        };
        self.networks().iter().map(|network| gateway(network).expect("a subnet")).collect()
    }

    /// Addresses of its containers on all its networks.
    fn addresses(&self) -> Vec<String> {
        let networks = self.networks();
        let containers = networks.iter().filter_map(|network| network["Containers"].as_object());
        let addresses = containers.flat_map(|all| all.values()).filter_map(|one| one["IPv4Address"].as_str());
        addresses.filter_map(|address| address.split('/').next()).map(str::to_owned).collect()
    }
}

/// A neighbour of the host in a network namespace of its own, that answers at two addresses.
struct Neighbour {
    name: String,
    server: Child,
    /// An ordinary address and a port.
    address: String,
    /// One among those where clouds have their metadata service.
    link_local: String,
}

fn ip(words: &str) {
    let done = Command::new("ip").args(words.split(' ')).output().expect("ip runs");
    assert!(done.status.success(), "ip {words}: {}", String::from_utf8_lossy(&done.stderr));
}

impl Neighbour {
    fn new() -> Self {
        let number = std::process::id() % 250;
        let (name, net) = (format!("mit{}", std::process::id()), format!("10.232.{number}"));
        let link_local = format!("169.254.{number}.254");
        ip(&format!("netns add {name}"));
        ip(&format!("link add {name} type veth peer name eth0 netns {name}"));
        ip(&format!("addr add {net}.1/30 dev {name}"));
        ip(&format!("link set {name} up"));
        ip(&format!("-n {name} addr add {net}.2/30 dev eth0"));
        ip(&format!("-n {name} addr add {link_local}/32 dev eth0"));
        ip(&format!("-n {name} link set eth0 up"));
        ip(&format!("route add {link_local}/32 via {net}.2 dev {name}"));
        let server = Command::new("ip")
            .args(["netns", "exec", &name, "python3", "-m", "http.server", "8080"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("python3 runs");
        let (address, link_local) = (format!("{net}.2 8080"), format!("{link_local} 8080"));
        let neighbour = Self { name, server, address, link_local };
        for address in [&neighbour.address, &neighbour.link_local] {
            eventually(SOON, "the neighbour answers the host", || {
                std::net::TcpStream::connect(address.replace(' ', ":")).map(drop).map_err(|why| why.to_string())
            });
        }
        neighbour
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        let _ = Command::new("ip").args(["link", "del", &self.name]).output();
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

/// Addresses of this machine, loopback apart.
fn own_addresses() -> Vec<String> {
    let out = Command::new("hostname").arg("-I").output().expect("hostname runs");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    text.split_whitespace().filter(|address| !address.contains(':')).map(str::to_owned).collect()
}

fn with_port(addresses: &[String], port: u16) -> Vec<String> {
    addresses.iter().map(|address| format!("{address} {port}")).collect()
}

#[test]
fn from_inside_nothing_is_reached_but_the_own_services_and_the_way_out_that_was_asked_for() {
    let Some(_turn) = real::turn() else { return };
    let cluster = Cluster::start();
    let host = cluster.host("box").label("owner", "asha").label("env", "dev").join();
    let neighbour = Neighbour::new();
    let one = up(&cluster, &host, &folder(&cluster, "one"));
    let two = up(&cluster, &host, &folder(&cluster, "two"));

    // Something of the host that listens everywhere: what a container would find behind any gateway.
    let listener = TcpListener::bind("0.0.0.0:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let gateways: Vec<String> = [one.gateways(), two.gateways()].concat();
    let host_ports = with_port(&[gateways.clone(), own_addresses()].concat(), port);
    let foreign: Vec<String> =
        [5432, 6379].iter().flat_map(|port| with_port(&two.addresses(), *port)).chain(host_ports.clone()).collect();
    assert_eq!(two.addresses().len(), 4, "three services, one of them on both networks");
    // Not from the database itself: it takes the end of a stray child for a crash of its own.
    for service in ["client", "out"] {
        let none = one.reached(service, &[foreign.clone(), vec![neighbour.link_local.clone()]].concat());
        assert_eq!(none, Vec::<String>::new(), "from {service}");
    }

    // Its own services by name, and the way out of the one that asked.
    assert_eq!(one.query("select 6 * 7").as_deref(), Ok("42"));
    let own = vec!["db 5432".to_owned(), neighbour.address.clone()];
    assert_eq!(one.reached("out", &own), [neighbour.address.as_str(), "db 5432"]);
    assert_eq!(one.reached("client", &own), ["db 5432"]);

    // A rule that somebody deletes opens the way, and is put back.
    let rules = || host.command(&["iptables", "-w", "5", "-S"]).expect("rules");
    let ours = |text: &str| -> Vec<String> {
        let chain = format!("-A MUSTER-{}", host.id().get(24..).unwrap_or_default());
        text.lines().filter(|line| line.starts_with(&chain)).map(str::to_owned).collect()
    };
    let before = ours(&rules());
    let bridge = format!("mi-{}", one.short);
    let rule = before.iter().find(|line| line.contains(&format!("-IN -i {bridge}"))).expect("the rule of the bridge");
    let mut words = vec!["iptables", "-w", "5"];
    let delete = rule.replacen("-A", "-D", 1);
    words.extend(delete.split(' '));
    let open = with_port(&one.gateways()[..1], port);
    // It may be put back before anybody looks.
    eventually(SOON, "without the rule the host is open: the checks above can fail", || {
        let _ = host.command(&words);
        if one.reached("client", &open) == open { Ok(()) } else { Err("closed".to_owned()) }
    });
    eventually(SOON, "the rule is back", || {
        let now = ours(&rules());
        if now == before { Ok(()) } else { Err(format!("{now:?}")) }
    });
    assert_eq!(one.reached("client", &open), Vec::<String>::new());

    // Without the jumps nothing of the chains holds; they come back too.
    for base in ["INPUT", "DOCKER-USER"] {
        let jump = rules()
            .lines()
            .find(|line| line.starts_with(&format!("-A {base} -j MUSTER-")) && line.contains(&host.id()[24..]))
            .map(str::to_owned);
        let delete = jump.expect("a jump").replacen("-A", "-D", 1);
        let words: Vec<&str> = ["iptables", "-w", "5"].into_iter().chain(delete.split(' ')).collect();
        host.command(&words).expect("deleted");
    }
    eventually(SOON, "the jumps are back", || {
        let jumps = rules().lines().filter(|line| line.contains(&format!("-j MUSTER-{}", &host.id()[24..]))).count();
        if jumps == 2 { Ok(()) } else { Err(format!("{jumps} of 2")) }
    });

    for name in ["one", "two"] {
        cluster.muster(&["env", "down", name]).by("asha").ok();
    }
    assert_eq!(host.objects(), Vec::<String>::new(), "no chain is left");
    drop(neighbour);
}

/// The line of `muster env show` about isolation, and everything else that it prints.
fn shown(cluster: &Cluster, name: &str) -> (Option<String>, String) {
    let printed = cluster.muster(&["env", "show", name]).by("asha").ok().stdout;
    let line = printed.lines().map(str::trim).find(|line| line.starts_with("isolation ")).map(str::to_owned);
    (line, printed)
}

fn proven(cluster: &Cluster, name: &str) -> String {
    eventually(SOON, &format!("{name} is proven to be apart"), || {
        let (line, printed) = shown(cluster, name);
        line.filter(|line| line.contains("proven") && line.ends_with("none got through")).ok_or(printed)
    })
}

#[test]
fn what_gets_through_is_told_and_an_environment_that_is_apart_is_proven_to_be() {
    let Some(_turn) = real::turn() else { return };
    let cluster = Cluster::start();
    let mut host = cluster.host("box").label("owner", "asha").label("env", "dev").join();
    let (bridge, foreign) = {
        let one = up(&cluster, &host, &folder(&cluster, "one"));
        let two = up(&cluster, &host, &folder(&cluster, "two"));
        (format!("muster-{}", one.short), two.container("db"))
    };
    for name in ["one", "two"] {
        let line = proven(&cluster, name);
        assert!(line.contains("from 3 services"), "{line}");
    }

    // Somebody puts a service of the second on the first's network; an agent that starts looks at all of them.
    host.engine.run(&["network", "connect", &bridge, &foreign]);
    host.crash(&cluster);
    let printed = eventually(SOON, "it is told", || {
        let (line, printed) = shown(&cluster, "one");
        if line.is_some_and(|line| line.contains("BROKEN")) { Ok(printed) } else { Err(printed) }
    });
    assert!(printed.contains("E_ISOLATION") && printed.contains(&foreign), "{printed}");
    assert!(printed.contains("ready since"), "it works all the same: {printed}");
    let events = cluster.muster(&["events", "--since", "10m"]).ok().stdout;
    assert!(events.contains("environment.isolation"), "{events}");

    host.engine.run(&["network", "disconnect", &bridge, &foreign]);
    host.crash(&cluster);
    proven(&cluster, "one");
    for name in ["one", "two"] {
        cluster.muster(&["env", "down", name]).by("asha").ok();
    }
    assert_eq!(host.objects(), Vec::<String>::new());
}

/// What Docker's own pools of addresses cannot hold: about 31 networks.
const MANY: usize = 40;

#[test]
fn forty_environments_stand_on_one_host() {
    let Some(_turn) = real::turn() else { return };
    let cluster = Cluster::start();
    let host = cluster.host("box").label("owner", "asha").label("env", "dev").join();
    let folder = cluster.folder().join("small");
    std::fs::create_dir(&folder).expect("a folder");
    std::fs::write(folder.join("compose.yaml"), "services: { cache: { image: \"redis:7\", ports: [\"6379\"] } }\n")
        .expect("a stack file");
    let began = std::time::Instant::now();
    for number in 0..MANY {
        let name = format!("e{number}");
        cluster.muster(&["env", "up", &name, "--host", "box", "--detach"]).by("asha").within(&folder).ok();
    }
    eventually(SOON * 2, "all are ready", || {
        let list = cluster.muster(&["env", "list"]).by("asha").json();
        let all = list["environments"].as_array().cloned().unwrap_or_default();
        let ready = all.iter().filter(|one| one["state"] == "ENVIRONMENT_STATE_READY").count();
        if ready == MANY { Ok(()) } else { Err(format!("{ready} of {MANY}")) }
    });
    eprintln!("{MANY} environments ready after {:?}", began.elapsed());
    let rules = host.command(&["iptables", "-w", "5", "-S"]).expect("rules");
    let walled = rules.lines().filter(|line| line.contains(&host.id()[24..]) && line.contains("-IN -i mi-")).count();
    assert_eq!(walled, MANY, "each has its rules");
    proven(&cluster, "e0");
    proven(&cluster, &format!("e{}", MANY - 1));
}
