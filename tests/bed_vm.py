"""Builds and starts ARM machines to measure on: a Raspberry Pi over ssh, a phone over adb.

Real arm64 Debian under qemu-system-aarch64, with the real sshd or Android's own adbd (Debian
trixie packages it), from the distribution's mirror alone. Needs root for mmdebstrap, neither KVM
nor binfmt nor a network namespace. The guests cannot reach out; one port of each is on 127.0.0.1.

Speeds mean nothing here; what is real is the kernel, the instruction set that `-cpu` names, the
memory limit, the protocols at both ends, and with `icount` the number of instructions.

By hand: `python tests/bed_vm.py pi FOLDER` builds, starts, writes FOLDER/devices/pi-bed.toml and
waits; then XDG_CONFIG_HOME=FOLDER/config edgelstm profile MODEL --on pi-bed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from ssh_server import free_port

TOOLS = (
    "qemu-system-aarch64", "mmdebstrap", "mke2fs", "cpio", "gzip", "dpkg", "dtc", "fdtput",
    "ssh", "ssh-keygen", "adb",
)  # fmt: skip
PACKAGES = (
    "qemu-system-arm ipxe-qemu mmdebstrap e2fsprogs cpio device-tree-compiler openssh-client adb"
)
KERNEL = "linux-image-cloud-arm64"
# In this order: virtio needs its ring.
MODULES = (
    "virtio_ring", "virtio", "virtio_mmio", "virtio_blk", "failover", "net_failover",
    "virtio_net", "virtio-rng",
)  # fmt: skip
COMMON = (
    "libstdc++6", "base-files", "base-passwd", "bash", "dash", "coreutils", "libc-bin", "grep",
    "sed", "procps", "mount", "iproute2", "hostname", "python3",
)  # fmt: skip
PI = (
    *COMMON, "openssh-server", "openssh-sftp-server", "login", "passwd", "findutils", "gzip",
    "tar", "util-linux",
)  # fmt: skip
PHONE = (*COMMON, "adbd", "toybox")
# Mesa's Vulkan device of software: what stands for a phone's GPU, float16 by default as those are.
GPU = ("mesa-vulkan-drivers", "libvulkan1")
BOARDS = {
    "cortex-a53": "Raspberry Pi 3 Model B Rev 1.2",
    "cortex-a72": "Raspberry Pi 4 Model B Rev 1.1",
    "cortex-a76": "Raspberry Pi 5 Model B Rev 1.0",
}
BOOT_LIMIT_S = 180.0

INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /sbin /usr/bin /usr/sbin; /bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
for m in MODULES; do [ -f /m/$m.ko ] && insmod /m/$m.ko; done
n=0; while [ ! -b /dev/vda ] && [ $n -lt 50 ]; do sleep 0.1; n=$((n+1)); done
mount -t ext4 /dev/vda /mnt && mount --move /dev /mnt/dev; mount --move /proc /mnt/proc
mount --move /sys /mnt/sys
exec switch_root /mnt /sbin/target-init
""".replace("MODULES", " ".join(MODULES))

TARGET_INIT = """#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t tmpfs tmpfs /run; mkdir -p /run/sshd /dev/pts /dev/shm
mount -t devpts devpts /dev/pts; mount -t tmpfs tmpfs /tmp; mount -t tmpfs tmpfs /dev/shm
chmod 1777 /tmp /dev/shm
mount -t cgroup2 none /sys/fs/cgroup
echo -1 > /proc/sys/kernel/perf_event_paranoid
mount -t tmpfs tmpfs /sys/class/thermal && mkdir -p /sys/class/thermal/thermal_zone0
echo cpu-thermal > /sys/class/thermal/thermal_zone0/type
echo 48312 > /sys/class/thermal/thermal_zone0/temp
ip link set lo up; ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0
"""

PI_INIT = (
    TARGET_INIT
    + """mount -t tmpfs -o size=1m,uid=1001,gid=1001,mode=700 tmpfs /home/full
hostname raspberrypi; exec /usr/sbin/sshd -D -e > /dev/console 2>&1
"""
)

PHONE_INIT = (
    TARGET_INIT
    + """hostname phone
export ADBD_PORT=5555 HOME=/data/local/tmp PATH=/system/bin:/usr/bin:/bin:/usr/sbin
cd /; exec /usr/sbin/adbd > /dev/console 2>&1
"""
)

GETPROP = r"""#!/bin/sh
# A stand-in with the same command line and output: Debian has no Android property service.
f=/system/build.prop
if [ -z "$1" ]; then sed -n 's/^\([^#=]*\)=\(.*\)/[\1]: [\2]/p' $f
else sed -n "s/^$1=//p" $f | tail -1; fi
"""
PROPERTIES = """ro.product.model=Test target (Debian adbd, arm64 VM)
ro.product.cpu.abi=arm64-v8a
ro.build.version.sdk=34
"""


def missing() -> str | None:
    """Why no machine can be built here; None when one can."""
    if os.getuid() != 0:
        return "needs root (mmdebstrap unpacks a root file system)"
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    absent = [tool for tool in TOOLS if shutil.which(tool, path=path) is None]
    if absent:
        return f"needs {', '.join(absent)}: apt install {PACKAGES}"
    if mirror() is None:
        return "needs a Debian mirror in apt's sources"
    return None


def mirror() -> str | None:
    """The machine's own Debian mirror."""
    argv = ["apt-get", "indextargets", "--format", "$(REPO_URI)"]
    done = subprocess.run(argv, capture_output=True, text=True)
    found = [line for line in done.stdout.split() if "security" not in line]
    return found[0] if found else None


class Machine:
    """A folder with an image, a kernel and an initrd, and the machine that runs from it.

    Every start begins from the pristine image.

    Attributes:
        kind: `pi` or `phone`.
        gpu: whether a phone has Vulkan, for 220 MB more.
        port: of ssh or adb on 127.0.0.1.
    """

    def __init__(self, kind: str, folder: Path, kernel: Path, *, gpu: bool = False) -> None:
        self.kind = kind
        self.gpu = gpu
        self.folder = folder
        self.kernel = kernel
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def serial(self) -> str:
        return f"127.0.0.1:{self.port}"

    def build(self) -> None:
        """Makes the image, if it is not there already."""
        if (self.folder / "root.img").exists():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        root = self.folder / "root"
        pi = self.kind == "pi"
        packages = PI if pi else (*PHONE, *GPU) if self.gpu else PHONE
        bootstrap(root, "bookworm" if pi else "trixie", packages)
        users(root)
        (pi_files if pi else phone_files)(self.folder, root)
        executable(root / "sbin" / "target-init", PI_INIT if pi else PHONE_INIT)
        image = self.folder / "root.img"
        run(
            "mke2fs",
            "-q",
            "-F",
            "-t",
            "ext4",
            "-d",
            str(root),
            str(image),
            "1300M" if self.gpu else "900M",
        )
        shutil.rmtree(root)

    @contextlib.contextmanager
    def running(
        self, *, cpu: str | None = None, memory_mb: int = 1024, icount: bool = False
    ) -> Iterator[Machine]:
        """A started machine that answers; it is killed afterwards."""
        self.start(cpu=cpu, memory_mb=memory_mb, icount=icount)
        try:
            yield self
        finally:
            self.kill()

    def start(self, *, cpu: str | None = None, memory_mb: int = 1024, icount: bool = False) -> None:
        cpu = cpu or ("cortex-a72" if self.kind == "pi" else "cortex-a76")
        guest = 22 if self.kind == "pi" else 5555
        forward = f"hostfwd=tcp:127.0.0.1:{self.port}-:{guest}"
        argv = ["qemu-system-aarch64", "-M", "virt", "-cpu", cpu, "-m", str(memory_mb)]
        argv += ["-smp", "1" if icount else "2", "-nographic", "-no-reboot", "-monitor", "none"]
        argv += ["-kernel", str(self.kernel / "vmlinuz"), "-initrd", str(self.kernel / "initrd.gz")]
        argv += ["-append", "console=ttyAMA0 quiet panic=-1 rdinit=/init"]
        image = f"if=none,file={self.folder}/root.img,format=raw,id=d,snapshot=on"
        argv += ["-drive", image, "-device", "virtio-blk-device,drive=d"]
        argv += ["-netdev", f"user,id=n,restrict=on,{forward}"]
        argv += ["-device", "virtio-net-device,netdev=n", "-device", "virtio-rng-device"]
        argv += ["-icount", "shift=0,sleep=on"] if icount else ["-accel", "tcg,thread=multi"]
        if self.kind == "pi":
            argv += ["-dtb", str(self._device_tree(argv, BOARDS.get(cpu, cpu)))]
        with (self.folder / "vm.log").open("wb") as log:
            self.process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        end = time.monotonic() + BOOT_LIMIT_S
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > end:
                self.kill()
                raise RuntimeError((self.folder / "vm.log").read_text("utf-8", "replace")[-2000:])
            time.sleep(0.3)

    def kill(self) -> None:
        """As if the power went."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None
        if self.kind == "phone":
            subprocess.run(["adb", "disconnect", self.serial], capture_output=True, timeout=30)

    def shell(self, command: str, time_limit_s: float = 60) -> str:
        """What a command on the machine prints, as root on the phone and as pi on the Pi."""
        argv = (
            ["ssh", "-F", str(self.folder / "ssh_config"), "bed", command]
            if self.kind == "pi"
            else ["adb", "-s", self.serial, "shell", command]
        )
        return subprocess.run(argv, capture_output=True, text=True, timeout=time_limit_s).stdout

    def write_profile(self, devices: Path, **lines: str) -> None:
        """A device profile `pi-bed` or `phone-bed`; values of `lines` are TOML."""
        devices.mkdir(parents=True, exist_ok=True)
        if self.kind == "pi":
            lines = {
                "target": '"ssh"', "host": '"bed"',
                "ssh_config": f'"{self.folder}/ssh_config"', **lines,
            }  # fmt: skip
        else:
            lines = {"target": '"adb"', "serial": f'"{self.serial}"', **lines}
        text = "".join(f"{key} = {value}\n" for key, value in lines.items())
        (devices / f"{self.kind}-bed.toml").write_text(text)

    def _device_tree(self, argv: list[str], model: str) -> Path:
        path = self.folder / "board.dtb"
        dump = [*argv]
        dump[dump.index("virt")] = f"virt,dumpdtb={path}"
        subprocess.run(dump, capture_output=True)
        run("fdtput", "-t", "s", str(path), "/", "model", model)
        return path

    def _answers(self) -> bool:
        try:
            if self.kind == "pi":
                write_ssh_config(self.folder, self.port)
                argv = ["ssh", "-F", str(self.folder / "ssh_config"), "-o", "ConnectTimeout=5"]
                return not subprocess.run(
                    [*argv, "bed", "true"], capture_output=True, timeout=20
                ).returncode
            argv = ["adb", "connect", self.serial]
            said = subprocess.run(argv, capture_output=True, text=True, timeout=20).stdout
            argv = ["adb", "-s", self.serial, "shell", "echo", "up"]
            if said.startswith(("connected", "already")):
                done = subprocess.run(argv, capture_output=True, text=True, timeout=20)
                if done.stdout.strip() == "up":
                    return True
            subprocess.run(["adb", "disconnect", self.serial], capture_output=True, timeout=20)
        except subprocess.TimeoutExpired:
            pass
        return False


def build_kernel(folder: Path) -> None:
    """`vmlinuz` and `initrd.gz` in `folder`, from Debian's arm64 kernel for virtual machines;
    does nothing where they are there already."""
    if (folder / "initrd.gz").exists():
        return
    work = folder / "work"
    for part in ("lists/partial", "cache/archives/partial"):
        (work / "apt" / part).mkdir(parents=True)
    (work / "apt" / "status").touch()
    (work / "sources.list").write_text(
        f"deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {mirror()} bookworm main\n"
    )
    (work / "apt.conf").write_text(
        'APT::Architecture "arm64"; APT::Architectures { "arm64"; };\n'
        f'Dir::State::lists "{work}/apt/lists"; Dir::Cache "{work}/apt/cache";\n'
        f'Dir::State::status "{work}/apt/status"; Dir::Etc::sourceparts "/dev/null";\n'
        f'Dir::Etc::sourcelist "{work}/sources.list"; APT::Sandbox::User "root";\n'
    )
    env = {**os.environ, "APT_CONFIG": str(work / "apt.conf")}
    subprocess.run(["apt-get", "update", "-qq"], env=env, check=True)
    depends = subprocess.run(
        ["apt-cache", "depends", KERNEL], env=env, check=True, capture_output=True, text=True
    ).stdout
    image = next(w for w in depends.split() if w.startswith("linux-image-") and w != KERNEL)
    argv = ["apt-get", "download", "-qq", image, "busybox-static"]
    subprocess.run(argv, env=env, cwd=work, check=True)
    for pattern, name in (("linux-image*.deb", "k"), ("busybox*.deb", "bb")):
        run("dpkg", "-x", str(next(work.glob(pattern))), str(work / name))
    shutil.copy(next((work / "k" / "boot").glob("vmlinuz-*")), folder / "vmlinuz")
    tree = work / "initrd"
    for part in ("bin", "proc", "sys", "dev", "mnt", "m"):
        (tree / part).mkdir(parents=True)
    shutil.copy(work / "bb" / "bin" / "busybox", tree / "bin" / "busybox")
    (tree / "bin" / "busybox").chmod(0o755)
    for module in MODULES:
        for path in (work / "k").rglob(f"{module}.ko"):
            shutil.copy(path, tree / "m" / path.name)
    executable(tree / "init", INIT)
    names = sorted(str(path.relative_to(tree)) for path in tree.rglob("*"))
    packed = subprocess.run(
        ["cpio", "-o", "-H", "newc", "--quiet"], cwd=tree, check=True, capture_output=True,
        input="\n".join(names).encode(),
    ).stdout  # fmt: skip
    (folder / "initrd").write_bytes(packed)
    run("gzip", "-1", "-f", str(folder / "initrd"))
    shutil.rmtree(work)


def bootstrap(root: Path, suite: str, packages: tuple[str, ...]) -> None:
    """Unpacks packages without running their scripts, which would need an arm64 processor."""
    argv = ["mmdebstrap", "-q", "--skip=check/qemu", "--architectures=arm64", "--variant=extract"]
    argv += ["--mode=root", f"--include={','.join(packages)}", suite, str(root), str(mirror())]
    subprocess.run(argv, check=True, capture_output=True)


def users(root: Path) -> None:
    """What base-passwd's script would have done."""
    for name in ("passwd", "group"):
        master = root / "usr" / "share" / "base-passwd" / f"{name}.master"
        shutil.copy(master, root / "etc" / name)
    for part in ("root", "proc", "sys", "dev", "run"):
        (root / part).mkdir(exist_ok=True)
    (root / "tmp").chmod(0o1777)


def pi_files(folder: Path, root: Path) -> None:
    """Users pi and full (whose home holds one megabyte), a server with its key, our key."""
    with (root / "etc" / "passwd").open("a") as file:
        file.write("pi:x:1000:1000::/home/pi:/bin/bash\nfull:x:1001:1001::/home/full:/bin/bash\n")
        file.write("sshd:x:105:65534::/run/sshd:/usr/sbin/nologin\n")
    with (root / "etc" / "group").open("a") as file:
        file.write("pi:x:1000:\nfull:x:1001:\n")
    lines = (root / "etc" / "passwd").read_text().splitlines()
    shadow = "".join(f"{line.split(':')[0]}:*:19000:0:99999:7:::\n" for line in lines)
    (root / "etc" / "shadow").write_text(shadow)
    for name, number in (("pi", 1000), ("full", 1001)):
        (root / "home" / name).mkdir(parents=True)
        os.chown(root / "home" / name, number, number)
    key = folder / "key"
    if not key.exists():
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
    ssh = root / "etc" / "ssh"
    shutil.copy(folder / "key.pub", ssh / "authorized_keys")
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(ssh / "ssh_host_ed25519_key"))
    shutil.copy(ssh / "ssh_host_ed25519_key.pub", folder / "hostkey.pub")
    (ssh / "sshd_config").write_text(
        "Port 22\nHostKey /etc/ssh/ssh_host_ed25519_key\nUsePAM no\nPasswordAuthentication no\n"
        "AuthorizedKeysFile /etc/ssh/authorized_keys\nPermitRootLogin no\nSetEnv LANG=C.UTF-8\n"
    )


def write_ssh_config(folder: Path, port: int) -> None:
    """`bed` and `full` as hosts, with the key that was made for the machine."""
    (folder / "known").write_text(f"[127.0.0.1]:{port} {(folder / 'hostkey.pub').read_text()}")
    (folder / "ssh_config").write_text(
        f"Host bed full\n  HostName 127.0.0.1\n  Port {port}\n  IdentityFile {folder}/key\n"
        f"  IdentitiesOnly yes\n  BatchMode yes\n  UserKnownHostsFile {folder}/known\n"
        "Host bed\n  User pi\nHost full\n  User full\n"
    )


def phone_files(folder: Path, root: Path) -> None:
    """Android's folders, and a stand-in for its properties."""
    (root / "system" / "bin").mkdir(parents=True)
    (root / "data" / "local" / "tmp").mkdir(parents=True)
    (root / "system" / "bin" / "sh").symlink_to("/bin/dash")
    executable(root / "system" / "bin" / "getprop", GETPROP)
    (root / "system" / "build.prop").write_text(PROPERTIES)
    (folder / "kind").write_text("phone")


def executable(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def run(*argv: str) -> None:
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    subprocess.run(argv, check=True, capture_output=True, env={**os.environ, "PATH": path})


def main() -> None:
    """`bed_vm.py pi|phone FOLDER [CPU] [MEMORY_MB] [icount]`; ends with Ctrl-C."""
    reason = missing()
    if reason is not None or len(sys.argv) < 3 or sys.argv[1] not in ("pi", "phone"):
        sys.exit(reason or main.__doc__)
    kind, folder, *rest = sys.argv[1:]
    base = Path(folder).resolve()
    kernel = base / "kernel"
    machine = Machine(kind, base / kind, kernel)
    build_kernel(kernel)
    machine.build()
    cpu = rest[0] if rest else None
    memory = int(rest[1]) if len(rest) > 1 else 1024
    with machine.running(cpu=cpu, memory_mb=memory, icount="icount" in rest):
        machine.write_profile(base / "config" / "edgelstm" / "devices")
        print(f"XDG_CONFIG_HOME={base}/config edgelstm profile MODEL.tflite --on {kind}-bed")
        sys.stdout.flush()
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main()
