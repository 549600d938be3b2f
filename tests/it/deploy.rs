//! The files under deploy/: units that systemd accepts, containers with few rights.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use moesync::config::{self, SecretSource};
use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

const DAEMON: &str = "deploy/systemd/moesync.service";
const PASS: &str = "deploy/systemd/moesync-sync.service";

/// The values of a key in the daemon's unit.
fn unit(key: &str) -> Vec<String> {
    let values = read(DAEMON);
    values.lines().filter_map(|line| line.strip_prefix(&format!("{key}="))).map(str::to_owned).collect()
}

fn compose() -> Value {
    yaml("deploy/compose.yaml").remove(0)
}

/// The configuration that both variants of Kubernetes share.
const KUBERNETES: &str = "deploy/kubernetes/base/moesync.toml";

/// The documents of a YAML file.
fn yaml(path: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A workload of Kubernetes.
struct Pod {
    file: String,
    spec: Value,
}

/// The folders of deploy/kubernetes/.
const VARIANTS: [&str; 6] = ["base", "cronjob", "daemon", "replicas", "service", "volume"];

/// Every pod template under deploy/kubernetes/.
fn pods() -> Vec<Pod> {
    let mut pods = Vec::new();
    for variant in VARIANTS {
        for file in fs::read_dir(root().join("deploy/kubernetes").join(variant)).unwrap() {
            let name = file.unwrap().file_name().into_string().unwrap();
            let file = format!("deploy/kubernetes/{variant}/{name}");
            for document in if name.ends_with(".yaml") { yaml(&file) } else { Vec::new() } {
                for template in ["/spec/template/spec", "/spec/jobTemplate/spec/template/spec"] {
                    let spec = document.pointer(template).cloned();
                    pods.extend(spec.map(|spec| Pod { file: file.clone(), spec }));
                }
            }
        }
    }
    assert_eq!(pods.len(), 3);
    pods
}

/// The grace period of downloads when the daemon is stopped.
fn grace() -> Duration {
    let source = read("src/sync/workers.rs");
    let seconds = source.split("const DRAINING: Duration = Duration::from_secs(").nth(1).unwrap();
    Duration::from_secs(seconds.split(')').next().unwrap().parse().unwrap())
}

fn seconds(text: &str) -> Duration {
    Duration::from_secs(text.strip_suffix('s').unwrap().parse().unwrap())
}

/// Runs systemd-analyze on a unit with the binary of this build; returns its output.
fn analyze(unit: &str, arguments: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join(Path::new(unit).file_name().unwrap());
    let text = read(unit);
    assert!(text.contains("=moesync "), "{text}");
    fs::write(&copy, text.replace("=moesync ", &format!("={} ", env!("CARGO_BIN_EXE_moesync")))).unwrap();
    let output = Command::new("systemd-analyze")
        .args(arguments)
        .arg(&copy)
        .env("LC_ALL", "C.UTF-8")
        .output()
        .unwrap_or_else(|error| panic!("systemd-analyze: {error}; install the Debian package systemd"));
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

#[test]
fn systemd_accepts_the_units_without_warnings() {
    for unit in [DAEMON, PASS] {
        assert_eq!(analyze(unit, &["verify"]), "", "{unit}");
    }
}

#[test]
fn the_units_are_hardened_to_an_exposure_of_at_most_1_2_of_10() {
    for unit in [DAEMON, PASS] {
        let said = analyze(unit, &["security", "--offline=true", "--threshold=12"]);
        assert!(said.contains("Overall exposure level for moesync"), "{said}");
    }
}

#[test]
fn the_command_lines_of_the_units_are_understood() {
    use clap::Parser as _;
    let lines: Vec<_> = [DAEMON, PASS].iter().flat_map(|unit| commands_of(unit)).collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    for line in lines {
        moesync::cli::Arguments::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
}

/// The command lines of moesync in a unit.
fn commands_of(unit: &str) -> Vec<String> {
    let text = read(unit);
    let lines = text.lines().filter_map(|line| line.strip_prefix("Exec")?.split_once('='));
    lines.map(|(_, command)| command.to_owned()).filter(|command| command.starts_with("moesync ")).collect()
}

#[test]
fn a_pass_by_the_timer_has_the_sandbox_of_the_daemon() {
    let sandbox = |unit: &str| {
        let text = read(unit);
        let service = text.split("\n[Service]\n").nth(1).unwrap().split("\n[Install]\n").next().unwrap().to_owned();
        let own = ["Exec", "Restart", "TimeoutStart", "Type=", "WatchdogSec="];
        let keys = service.lines().filter(|line| line.contains('=') && !line.starts_with('#'));
        keys.filter(|line| !own.iter().any(|own| line.starts_with(own))).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(sandbox(DAEMON), sandbox(PASS));
}

#[test]
fn the_package_holds_the_files_of_the_units_and_starts_nothing_without_a_key() {
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    let deb = &manifest["package"]["metadata"]["deb"];
    let assets = deb["assets"].as_array().unwrap();
    let sources: Vec<_> = assets.iter().map(|asset| asset[0].as_str().unwrap()).collect();
    for file in fs::read_dir(root().join("deploy/systemd")).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        let is_packed = sources.contains(&format!("deploy/systemd/{name}").as_str());
        assert!(is_packed || name == "test", "deploy/systemd/{name} is not in the package");
    }
    for source in sources.iter().filter(|source| !source.starts_with("target/")) {
        assert!(root().join(source).exists(), "{source}");
    }
    for units in deb["systemd-units"].as_array().unwrap() {
        assert_eq!(units["start"].as_bool(), Some(false), "{units}");
    }
    assert_eq!(unit("AssertPathExists"), [unit("LoadCredential")[0].split_once(':').unwrap().1]);
}

#[test]
fn the_key_is_read_where_each_deployment_puts_it() {
    let key_file = |path: &str, env: &[(&str, &str)]| {
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let config = config::load(&root().join(path), env).unwrap();
        let SecretSource::File { file, .. } = config.workspaces[0].secret_key.clone() else { panic!("{path}") };
        file.path
    };
    let systemd = key_file("deploy/systemd/moesync.toml", &[("CREDENTIALS_DIRECTORY", "/credentials")]);
    let credential = unit("LoadCredential")[0].split(':').next().unwrap().to_owned();
    assert_eq!(systemd, Path::new("/credentials").join(credential));

    let secrets = compose()["services"]["moesync"]["secrets"].clone();
    let mounted: Vec<_> = secrets.as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect();
    assert_eq!(mounted, ["secret-key", "web-token"]);
    assert_eq!(key_file("deploy/compose.toml", &[]), Path::new("/run/secrets").join(&mounted[0]));
    assert_eq!(token_file("deploy/compose.toml"), Path::new("/run/secrets").join(&mounted[1]));
    assert!(mounted.iter().all(|name| compose()["secrets"][name]["file"].is_string()));

    let secret = &yaml("deploy/kubernetes/secret.example.yaml")[0];
    for pod in pods() {
        let volume =
            pod.spec["volumes"].as_array().unwrap().iter().find(|volume| volume["secret"].is_object()).unwrap();
        assert_eq!(volume["secret"]["secretName"], secret["metadata"]["name"], "{}", pod.file);
        let mounts = pod.spec["containers"][0]["volumeMounts"].as_array().unwrap();
        let mount = mounts.iter().find(|mount| mount["name"] == volume["name"]).unwrap();
        let folder = Path::new(mount["mountPath"].as_str().unwrap());
        for path in [key_file(KUBERNETES, &[]), token_file(KUBERNETES)] {
            assert_eq!(path.parent(), Some(folder), "{}", pod.file);
            assert!(secret["stringData"][path.file_name().unwrap().to_str().unwrap()].is_string(), "{path:?}");
        }
    }
}

fn token_file(config: &str) -> PathBuf {
    config::load(&root().join(config), []).unwrap().web.token_file.unwrap().path
}

#[test]
fn everything_that_is_written_is_on_a_writable_mount() {
    let state = Path::new("/var/lib").join(&unit("StateDirectory")[0]);
    let volumes = compose()["services"]["moesync"]["volumes"].clone();
    assert!(volumes.as_array().unwrap().contains(&Value::from(format!("state:{}", state.display()))), "{volumes}");
    for pod in pods() {
        let mounts = pod.spec["containers"][0]["volumeMounts"].as_array().unwrap();
        let writable: Vec<_> = mounts.iter().filter(|mount| mount["readOnly"] != true).collect();
        assert_eq!(writable.len(), 1, "{}", pod.file);
        assert_eq!(writable[0]["mountPath"].as_str().unwrap(), state.to_str().unwrap(), "{}", pod.file);
    }
    for path in ["deploy/systemd/moesync.toml", "deploy/compose.toml", KUBERNETES] {
        let env = [("CREDENTIALS_DIRECTORY".to_owned(), "/credentials".to_owned())];
        let config = config::load(&root().join(path), env).unwrap();
        let config::Ledger::Sqlite(ledger) = &config.ledger else { panic!("{path}: {:?}", config.ledger) };
        assert!(ledger.starts_with(&state), "{path}");
        let config::Location::Directory(directory) = &config.destinations[0].location else { continue };
        assert!(directory.starts_with(&state), "{path}");
    }
}

#[test]
fn a_stop_leaves_more_time_than_downloads_are_given() {
    assert!(seconds(&unit("TimeoutStopSec")[0]) > grace());
    assert!(seconds(compose()["services"]["moesync"]["stop_grace_period"].as_str().unwrap()) > grace());
    for pod in pods() {
        let given = Duration::from_secs(pod.spec["terminationGracePeriodSeconds"].as_u64().unwrap());
        assert!(given > grace(), "{}", pod.file);
    }
}

#[test]
fn the_container_has_no_capabilities_and_a_root_that_is_read_only() {
    let service = &compose()["services"]["moesync"];
    assert_eq!(service["read_only"], true);
    assert_eq!(service["cap_drop"], serde_json::json!(["ALL"]));
    assert_eq!(service["security_opt"], serde_json::json!(["no-new-privileges:true"]));
}

#[test]
fn the_files_that_compose_mounts_exist() {
    let services = compose()["services"].clone();
    let mut seen = 0;
    for (name, service) in services.as_object().unwrap() {
        for volume in service["volumes"].as_array().unwrap() {
            let source = volume.as_str().unwrap().split(':').next().unwrap();
            // The user creates this one from compose.toml.
            if let Some(path) = source.strip_prefix("./").filter(|path| *path != "moesync.toml") {
                assert!(root().join("deploy").join(path).exists(), "{name}: {source}");
                seen += 1;
            }
        }
    }
    assert_eq!(seen, 4);
}

#[test]
fn health_checks_and_scrapes_are_admitted() {
    let web = config::load(&root().join("deploy/compose.toml"), []).unwrap().web;
    let prometheus = yaml("deploy/prometheus/prometheus.yaml").remove(0);
    let job = &prometheus["scrape_configs"][0];
    // Scraped by IP address, which the page admits.
    let found = &job["dns_sd_configs"][0];
    let host = found["names"][0].as_str().unwrap();
    assert!(web.hosts.contains(&host.to_owned()), "{host}");
    assert!(compose()["services"][host].is_object(), "{host}");
    assert_eq!((found["type"].as_str(), found["port"].as_u64()), (Some("A"), Some(web.listen.unwrap().port().into())));
    assert_eq!(job["job_name"], "moesync", "what the alert rules expect");

    for path in ["deploy/compose.toml", KUBERNETES] {
        let web = config::load(&root().join(path), []).unwrap().web;
        assert!(!web.listen.unwrap().ip().is_loopback(), "{path}");
        assert_eq!(web.open, [config::Open::Health, config::Open::Metrics], "{path}");
    }
    let port = config::load(&root().join(KUBERNETES), []).unwrap().web.listen.unwrap().port();
    for pod in pods().iter().filter(|pod| !pod.file.contains("cronjob")) {
        let container = &pod.spec["containers"][0];
        assert_eq!(container["ports"][0]["containerPort"], port);
        for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
            let path = container[probe]["httpGet"]["path"].as_str().unwrap();
            assert!(["/livez", "/readyz"].contains(&path), "{probe}: {path}");
        }
    }
}

/// The violations of the profile "restricted" of the Pod Security Standards.
fn offences(pod: &Value) -> Vec<String> {
    let mut offences = Vec::new();
    let mut must = |holds: bool, rule: &str| offences.extend((!holds).then(|| rule.to_owned()));
    for key in ["hostNetwork", "hostPID", "hostIPC"] {
        must(pod[key].is_null() || pod[key] == false, key);
    }
    let own = &pod["securityContext"];
    must(own["sysctls"].is_null(), "sysctls");
    let kinds =
        ["configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"];
    for volume in pod["volumes"].as_array().into_iter().flatten() {
        let mut others = volume.as_object().unwrap().keys().filter(|key| *key != "name");
        must(others.all(|kind| kinds.contains(&kind.as_str())), "volume types");
    }
    let kinds = ["containers", "initContainers", "ephemeralContainers"];
    for container in kinds.iter().flat_map(|kind| pod[*kind].as_array()).flatten() {
        let context = &container["securityContext"];
        // A container's own setting overrides the pod's.
        let either = |key: &str| if context[key].is_null() { own[key].clone() } else { context[key].clone() };
        must(either("runAsNonRoot") == true, "runAsNonRoot");
        must(either("runAsUser") != 0, "runAsUser");
        let seccomp = either("seccompProfile")["type"].clone();
        must(seccomp == "RuntimeDefault" || seccomp == "Localhost", "seccompProfile");
        must(context["allowPrivilegeEscalation"] == false, "allowPrivilegeEscalation");
        must(context["privileged"].is_null() || context["privileged"] == false, "privileged");
        must(context["procMount"].is_null() || context["procMount"] == "Default", "procMount");
        let drops = context["capabilities"]["drop"].as_array().is_some_and(|drop| drop.contains(&"ALL".into()));
        must(drops, "capabilities.drop");
        let adds = context["capabilities"]["add"].as_array().cloned().unwrap_or_default();
        must(adds.iter().all(|add| add == "NET_BIND_SERVICE"), "capabilities.add");
        let ports = container["ports"].as_array().into_iter().flatten();
        must(ports.into_iter().all(|port| port["hostPort"].is_null()), "hostPort");
        for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
            must(container[probe]["httpGet"]["host"].is_null(), "a probe's host");
        }
    }
    offences
}

#[test]
fn every_pod_passes_the_pod_security_profile_restricted() {
    for pod in pods() {
        assert_eq!(offences(&pod.spec), [] as [&str; 0], "{}", pod.file);
        for container in pod.spec["containers"].as_array().unwrap() {
            assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true, "{}", pod.file);
        }
        assert_eq!(pod.spec["automountServiceAccountToken"], false, "{}", pod.file);
    }
    // The rules detect each violation.
    let lax = serde_json::json!({
        "hostNetwork": true,
        "volumes": [{"name": "root", "hostPath": {"path": "/"}}],
        "containers": [{"ports": [{"hostPort": 80}], "securityContext": {"runAsUser": 0, "privileged": true}}],
    });
    let expected = [
        "hostNetwork",
        "volume types",
        "runAsNonRoot",
        "runAsUser",
        "seccompProfile",
        "allowPrivilegeEscalation",
        "privileged",
        "capabilities.drop",
        "hostPort",
    ];
    assert_eq!(offences(&lax), expected);
}

#[test]
fn the_volume_has_one_daemon_at_a_time() {
    let deployment = yaml("deploy/kubernetes/daemon/deployment.yaml").remove(0);
    assert_eq!(deployment["spec"]["replicas"], 1);
    assert_eq!(deployment["spec"]["strategy"]["type"], "Recreate");
    let passes = yaml("deploy/kubernetes/cronjob/cronjob.yaml").remove(0);
    assert_eq!(passes["spec"]["concurrencyPolicy"], "Forbid");
    let claims = |pod: &Pod| {
        let volumes = pod.spec["volumes"].as_array().unwrap().clone();
        volumes.iter().find_map(|volume| volume["persistentVolumeClaim"]["claimName"].as_str().map(str::to_owned))
    };
    let volume = yaml("deploy/kubernetes/volume/volume.yaml").remove(0);
    for pod in pods().iter().filter(|pod| !pod.file.contains("replicas")) {
        assert_eq!(claims(pod).as_deref(), volume["metadata"]["name"].as_str(), "{}", pod.file);
    }
}

#[test]
fn replicas_share_a_ledger_and_survive_a_node() {
    let deployment = yaml("deploy/kubernetes/replicas/deployment.yaml").remove(0);
    assert_eq!(deployment["spec"]["replicas"], 3);
    let labels = &deployment["spec"]["template"]["metadata"]["labels"];
    let pod = &deployment["spec"]["template"]["spec"];
    let apart = &pod["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"];
    assert_eq!(apart[0]["podAffinityTerm"]["topologyKey"], "kubernetes.io/hostname");
    assert_eq!(&apart[0]["podAffinityTerm"]["labelSelector"]["matchLabels"], labels);
    let budget = yaml("deploy/kubernetes/replicas/disruptionbudget.yaml").remove(0);
    assert_eq!((&budget["spec"]["maxUnavailable"], &budget["spec"]["selector"]["matchLabels"]), (&1.into(), labels));

    // The address of the ledger comes from a secret, and overrides the configuration that all variants share.
    let env = pod["containers"][0]["env"].as_array().unwrap();
    let source = &env.iter().find(|one| one["name"] == "MOESYNC__LEDGER__URL").unwrap()["valueFrom"]["secretKeyRef"];
    let secrets = yaml("deploy/kubernetes/secret.example.yaml");
    let secret = secrets.iter().find(|one| one["metadata"]["name"] == source["name"]).unwrap();
    let url = secret["stringData"][source["key"].as_str().unwrap()].as_str().unwrap();
    let env = [("MOESYNC__LEDGER__URL".to_owned(), url.to_owned())];
    let config = config::load(&root().join(KUBERNETES), env).unwrap();
    assert!(matches!(config.ledger, config::Ledger::Postgres(_)), "{:?}", config.ledger);
    let claims = pod["volumes"].as_array().unwrap().iter().filter(|volume| !volume["persistentVolumeClaim"].is_null());
    assert_eq!(claims.count(), 0, "a volume that one node mounts keeps the replicas on it");
}

#[test]
fn compose_has_a_server_for_replicas_under_a_profile() {
    let services = compose()["services"].clone();
    assert_eq!(services["postgres"]["profiles"], serde_json::json!(["postgresql"]));
    let moesync = &services["moesync"];
    assert_eq!(moesync["depends_on"]["postgres"]["required"], false);
    let text = read("deploy/compose.yaml");
    let url = text.split("echo 'LEDGER_URL=").nth(1).unwrap().split('\'').next().unwrap();
    let by_default = moesync["environment"]["MOESYNC__LEDGER__URL"].as_str().unwrap();
    let by_default = by_default.strip_prefix("${LEDGER_URL:-").unwrap().strip_suffix('}').unwrap();
    for (url, is_server) in [(url.replace("${POSTGRES_PASSWORD}", "secret"), true), (by_default.to_owned(), false)] {
        let env = [("MOESYNC__LEDGER__URL".to_owned(), url)];
        let config = config::load(&root().join("deploy/compose.toml"), env).unwrap();
        assert_eq!(matches!(config.ledger, config::Ledger::Postgres(_)), is_server, "{:?}", config.ledger);
    }
}

#[test]
fn the_arguments_of_the_containers_are_valid() {
    use clap::Parser as _;
    let words = |value: &Value| {
        value.as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let pods = pods();
    let mut lines: Vec<_> = pods.iter().map(|pod| words(&pod.spec["containers"][0]["args"])).collect();
    let text = read("Dockerfile");
    let health = text.split("CMD [\"/usr/local/bin/moesync\", ").nth(1).unwrap().split(']').next().unwrap();
    lines.push(words(&serde_json::from_str(&format!("[{health}]")).unwrap()));
    for line in lines {
        let arguments = ["moesync".to_owned()].into_iter().chain(line.clone());
        moesync::cli::Arguments::try_parse_from(arguments).unwrap_or_else(|error| panic!("{line:?}: {error}"));
    }
}

#[test]
fn every_kustomization_names_files_that_exist() {
    for variant in VARIANTS {
        let folder = format!("deploy/kubernetes/{variant}");
        let kustomization = yaml(&format!("{folder}/kustomization.yaml")).remove(0);
        let resources = kustomization["resources"].as_array().unwrap().clone();
        let files = kustomization["configMapGenerator"][0]["files"].as_array().cloned().unwrap_or_default();
        for named in resources.iter().chain(&files) {
            assert!(root().join(&folder).join(named.as_str().unwrap()).exists(), "{folder}: {named}");
        }
        let present = fs::read_dir(root().join(&folder)).unwrap().count();
        let own = resources.iter().filter(|name| !name.as_str().unwrap().starts_with("../")).count();
        assert_eq!(present, own + files.len() + 1, "{folder} holds what its kustomization does not name");
    }
}

#[test]
fn the_image_has_no_shell_and_runs_as_any_user() {
    let text = read("Dockerfile");
    let (build, image) = text.rsplit_once("\nFROM ").unwrap();
    let image: Vec<_> = image.lines().collect();
    let kept = image.iter().filter(|line| !line.starts_with(['#', ' ']) && !line.is_empty()).copied();
    assert_eq!(
        kept.map(|line| line.split(' ').next().unwrap()).collect::<Vec<_>>(),
        ["scratch", "ARG", "LABEL", "COPY", "USER", "WORKDIR", "ENV", "HEALTHCHECK", "ENTRYPOINT", "CMD"]
    );
    // There is no other folder for temporary files.
    assert!(image.contains(&"WORKDIR /var/lib/moesync") && image.contains(&"ENV TMPDIR=/var/lib/moesync"));
    assert!(image.contains(&"USER 65532:65532") && image.contains(&"COPY --from=build /image /"));
    let version = format!("org.opencontainers.image.version=\"{}\"", env!("CARGO_PKG_VERSION"));
    assert!(text.contains(&version), "another version than {version}");
    let toolchain = read("rust-toolchain.toml");
    let channel = toolchain.lines().find_map(|line| line.strip_prefix("channel = ")).unwrap().trim_matches('"');
    assert!(build.contains(&format!("/rust:{channel}-slim-bookworm\n")), "built with another Rust than {channel}");
    let allowed = read(".dockerignore");
    for copied in build.lines().filter_map(|line| line.strip_prefix("COPY ")) {
        let (sources, _) = copied.rsplit_once(' ').unwrap();
        for source in sources.split(' ') {
            assert!(root().join(source).exists() && allowed.contains(&format!("!{source}\n")), "{source}");
        }
    }
}
