"""What run.sh checks: the files, and the program (the one argument) started as they say."""

import contextlib
import fnmatch
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "deploy/Dockerfile"
UNIT = ROOT / "deploy/coinslot.service"
COMPOSE = ROOT / "compose.yml"
KUBERNETES = ROOT / "deploy/kubernetes.yaml"
EXAMPLE = (ROOT / ".env.example").read_text()
# All settings, given there or as a comment.
SETTINGS = set(re.findall(r"^(?:# )?([A-Z][A-Z0-9_]*)=", EXAMPLE, re.M))
# What the node's libraries read.
OF_THE_C_LIBRARY = {"MALLOC_ARENA_MAX"}
passed = 0


def ok(holds, what):
    global passed
    if not holds:
        sys.exit(f"FAILED: {what}")
    passed += 1


def instructions():
    """The Dockerfile's, in order, as words."""
    text = re.sub(r"\\\n\s*", " ", DOCKERFILE.read_text())
    lines = (line.split() for line in text.splitlines() if line.strip() and not line.startswith("#"))
    return [(words[0], words[1:]) for words in lines]


def copied():
    """What the image takes from the checkout."""
    copies = [words for name, words in instructions() if name == "COPY" and not words[0].startswith("--from")]
    return [source for words in copies for source in words[:-1]]


def host():
    """What cargo builds for here: the crates of other machines are not on this one."""
    said = subprocess.run(["rustc", "-vV"], capture_output=True, text=True, check=True).stdout
    return re.search(r"^host: (\S+)$", said, re.M)[1]


def sources():
    """Whether the program can be built from what a builder sees after its COPY lines."""
    ignore = (DOCKERFILE.parent / "Dockerfile.dockerignore").read_text().splitlines()
    kept = [line[1:] for line in ignore if line.startswith("!")]
    ok("*" in ignore, "the image sees the whole checkout")
    with tempfile.TemporaryDirectory(prefix="coinslot-context-") as made:
        context = Path(made)
        for source in copied():
            ok((ROOT / source).exists(), f"COPY {source}: there is no such file")
            ok(any(fnmatch.fnmatch(source, pattern) for pattern in kept), f"COPY {source}: .dockerignore hides it")
            (context / source).parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if (ROOT / source).is_dir() else shutil.copy2)(ROOT / source, context / source)
        # All targets of the manifest are there, as a build wants them (`cargo metadata` does without), and what the
        # sources have in them.
        parse = ["cargo", "fetch", "--locked", "--offline", "--target", host(), "--manifest-path", context / "Cargo.toml"]
        parsed = subprocess.run(parse, capture_output=True, text=True)
        ok(parsed.returncode == 0, f"the image cannot be built: {parsed.stderr}")
        for source in (context / "src").rglob("*.rs"):
            # What only tests have in them stands behind these lines.
            text = re.split(r"#\[cfg\(test\)\]\n(?:#\[.*\]\n)*(?:pub\S* )?mod \w+ \{", source.read_text())[0]
            for included in re.findall(r'include_(?:str|bytes)!\("([^"]+)"\)', text):
                ok((source.parent / included).exists(), f"the image lacks {included} of {source.relative_to(context)}")
            # Those of a folder.
            for folder in re.findall(r'include_str!\(concat!\("([^"]+)"', text):
                ok((source.parent / folder).is_dir(), f"the image lacks {folder} of {source.relative_to(context)}")
        for document in re.findall(r'template\(path = "([^"]+)"', "".join(f.read_text() for f in (context / "src").rglob("*.rs"))):
            ok((context / "templates" / document).exists(), f"the image lacks templates/{document}")


def dockerfile(help_text):
    env = {}
    for name, words in instructions():
        if name == "ENV":
            env.update(word.split("=", 1) for word in words)
    names(env, "the image")
    users = [words[0] for name, words in instructions() if name == "USER"]
    ok(users and not users[-1].startswith(("0", "root")), "the image runs as root")
    health = [words for name, words in instructions() if name == "HEALTHCHECK"][0]
    verb = re.findall(r'"([a-z]+)"\]', " ".join(health))
    ok(verb and f"coinslot {verb[0]}" in help_text, f"the image is looked after by a verb that is none: {health}")
    return env


def names(environment, where):
    unknown = set(environment) - SETTINGS - OF_THE_C_LIBRARY
    ok(not unknown, f"{where} sets what is no setting: {unknown}")


def compose(image):
    subprocess.run([Path(sys.executable).parent / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE], check=True)
    docker = subprocess.run(["docker", "compose", "version"], capture_output=True) if shutil.which("docker") else None
    if docker and docker.returncode == 0:
        for profile in ([], ["--profile", "postgres"]):
            subprocess.run(["docker", "compose", "-f", COMPOSE, *profile, "config", "--quiet"], check=True)
    stack = yaml.safe_load(COMPOSE.read_text())
    services = stack["services"]
    nodes = {name: service for name, service in services.items() if service["image"] == "coinslot"}
    ok(set(nodes) == {"coinslot", "coinslot-postgres"}, f"the nodes are {set(nodes)}")
    ok("profiles" not in nodes["coinslot"], "a node on SQLite needs no profile")
    ok(nodes["coinslot-postgres"]["profiles"] == services["postgres"]["profiles"] == ["postgres"], "PostgreSQL has a profile")
    for name, node in nodes.items():
        names(node["environment"], name)
        ok((ROOT / node["build"]["dockerfile"]) == DOCKERFILE, f"{name} is built from another file")
        ok(node["read_only"] and node["cap_drop"] == ["ALL"], f"{name} may do more than it needs")
        ok(all(port.startswith("127.0.0.1:") for port in node["ports"]), f"{name} is open to everybody")
        # What the image declares as its volume is what is kept.
        kept = [words[0] for instruction, words in instructions() if instruction == "VOLUME"]
        mounted = [volume.split(":")[1] for volume in node["volumes"]]
        ok(mounted == kept == [node["environment"]["DATA_DIR"]], f"{name} does not keep its data")
        ok(all(volume.split(":")[0] in stack["volumes"] for volume in node["volumes"]), f"{name}'s volume is not declared")
    ok("DATABASE_URL" in nodes["coinslot-postgres"]["environment"], "PostgreSQL is not used")
    ok("DATABASE_URL" not in nodes["coinslot"]["environment"], "the operator's own DATABASE_URL is overruled")
    return {**image, **nodes["coinslot"]["environment"]}


def kubernetes():
    tool = Path(sys.executable).parent / "kubernetes-validate"
    subprocess.run([tool, "--strict", "-k", "1.31", KUBERNETES], check=True)
    documents = list(yaml.safe_load_all(KUBERNETES.read_text()))
    node = next(document for document in documents if document["kind"] == "StatefulSet")
    container = node["spec"]["template"]["spec"]["containers"][0]
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    names(environment, "the pod")
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    workdir = [words[0] for instruction, words in instructions() if instruction == "WORKDIR"][-1]
    wanted = {"data": str(Path(environment["DATA_DIR"]).parent), "settings": f"{workdir}/.env"}
    ok(mounted == wanted, f"the pod does not keep its data, or reads no settings: {mounted}")
    paths = sorted({container[probe]["httpGet"]["path"] for probe in ("livenessProbe", "readinessProbe", "startupProbe")})
    return environment, paths


def unit(binary, work):
    """Its lines by name, if systemd understands them."""
    lines = {}
    for line in UNIT.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            name, value = line.split("=", 1)
            lines.setdefault(name, []).append(value)
    names([value.split("=", 1)[0] for value in lines["Environment"]], "the unit")
    # The program and its user are not on this machine.
    there = work / UNIT.name
    text = UNIT.read_text().replace(lines["ExecStart"][0], str(binary))
    there.write_text(text.replace("User=coinslot", "User=root"))
    verified = subprocess.run(["systemd-analyze", "verify", there], capture_output=True, text=True)
    # Other units of the machine are complained of, too.
    complaints = [line for line in verified.stderr.splitlines() if UNIT.name in line]
    ok(verified.returncode == 0 and not complaints, f"systemd does not take the unit: {verified.stderr}")
    judged = subprocess.run(["systemd-analyze", "security", "--offline=true", UNIT], capture_output=True, text=True)
    exposure = re.search(r"exposure level for \S+: ([0-9.]+)", judged.stdout)
    ok(exposure and float(exposure[1]) <= 1.5, f"the unit is open: {judged.stdout}{judged.stderr}")
    return lines


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@contextlib.contextmanager
def running(binary, work, environment, umask, supervised):
    """A node whose working directory it cannot write to, as nobody where this is root. The directory that it is given is
    its own; where its data lie beneath, it is like a volume with an fsGroup: root's, and open to the group."""
    home, state = work / "home", work / "data"
    state.mkdir(mode=0o700)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(str(work / "notify"))
    listener.settimeout(60)
    if supervised:
        environment = {**environment, "NOTIFY_SOCKET": str(work / "notify")}
    user = {}
    if os.geteuid() == 0:
        user = {"user": 65534, "group": 65534, "extra_groups": []}
        if Path(environment["DATA_DIR"]) == state:
            os.chown(state, 65534, 65534)
        else:
            os.chown(state, 0, 65534)
            os.chmod(state, 0o2775)
        os.chmod(work / "notify", 0o777)
    log = (work / "log").open("wb")
    node = subprocess.Popen([binary], cwd=home, env=environment, umask=umask, stdout=log, stderr=log, **user)
    try:
        if supervised:
            ok(listener.recv(256) == b"READY=1\n", "systemd is not told that the node listens")
        yield node, {"cwd": home, "env": environment, **user}
        node.send_signal(signal.SIGTERM)
        ok(node.wait(45) == 0, f"it does not stop well: {(work / 'log').read_text()}")
    finally:
        node.kill()
        node.wait()
        listener.close()


def start(binary, environment, files, umask, supervised, paths, beneath=""):
    """Starts a node with this environment and these files beside it, and looks at it from outside. Its data are in what
    it is given for them, or `beneath` that."""
    with tempfile.TemporaryDirectory(prefix="coinslot-deploy-") as made:
        work = Path(made)
        work.chmod(0o755)
        (work / "home").mkdir(mode=0o755)
        for name, text in files.items():
            (work / "home" / name).write_text(text)
        port = free_port()
        environment = {**environment, "DATA_DIR": str(work / "data" / beneath), "PORT": port}
        with running(binary, work, environment, umask, supervised) as (_, how):
            for _ in range(600):
                health = subprocess.run([binary, "health"], capture_output=True, text=True, **how)
                if health.returncode == 0:
                    break
                time.sleep(0.1)
            ok(health.returncode == 0, f"it is not well: {health.stderr}{(work / 'log').read_text()}")
            for path in paths:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
                    ok(answer.status == 200, path)
            checked = subprocess.run([binary, "check"], capture_output=True, text=True, **how)
            ok(checked.returncode == 0, f"the settings do not hold: {checked.stdout}{checked.stderr}")
        kept = [path for path in (work / "data").rglob("*") if path.is_file()]
        ok(any(path.suffix == ".db" for path in kept), f"it keeps no database: {kept}")
        open_to_others = [path for path in kept if stat.S_IMODE(path.stat().st_mode) & 0o077]
        ok(umask == 0o022 or not open_to_others, f"others can read {open_to_others}")


def check(binary):
    # Where anybody may run it.
    with tempfile.TemporaryDirectory(prefix="coinslot-program-") as made:
        work = Path(made)
        work.chmod(0o755)
        program = work / "coinslot"
        shutil.copy2(binary, program)
        help_text = subprocess.run([program, "--help"], capture_output=True, text=True, check=True).stdout
        image = dockerfile(help_text)
        inside = compose(image)
        pod, paths = kubernetes()
        service = unit(program, work)
        # One .env for all: the example, and what only compose reads.
        env = EXAMPLE + "\nNAME='a node, of \"mine\"'\nBTC_USD_FIXED=100000\nPOSTGRES_PASSWORD=secret\n"
        ok(service["WorkingDirectory"] == ["/etc/coinslot"], "the unit reads another .env")
        given = dict(value.split("=", 1) for value in service["Environment"])
        start(program, given, {".env": env}, int(service["UMask"][0], 8), service["Type"] == ["notify"], paths)
        # Compose reads the file itself, and the container has none.
        lines = (line.split("=", 1) for line in env.splitlines() if re.match(r"[A-Z]", line))
        start(program, {**{name: value.strip("'") for name, value in lines}, **inside}, {}, 0o022, False, paths)
        # Kubernetes mounts the file, and the volume above the data.
        beneath = Path(pod["DATA_DIR"]).name
        start(program, {**image, **pod}, {".env": env}, 0o022, False, paths, beneath)
    print(f"{passed} passed, 0 failed")


if __name__ == "__main__":
    sources()
    check(Path(sys.argv[1]).resolve())
