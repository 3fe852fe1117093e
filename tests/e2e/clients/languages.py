"""Installs each client from its package, as users do, and gives the command that runs its driver program."""

import json
import os
import re
import shutil
import subprocess

from breakerd import ROOT, environment

CLIENTS = os.path.join(ROOT, "docs", "clients")
DRIVERS = os.path.join(ROOT, "tests", "e2e", "clients")
PYTHON = "/usr/bin/python3"


def sh(*command, cwd=None, env=None):
    done = subprocess.run(command, cwd=cwd, env=environment(env), capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=240, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def version():
    """The daemon's version, which each package must have."""
    with open(os.path.join(ROOT, "Makefile"), encoding="utf-8") as file:
        return re.search(r"^VERSION := (\S+)$", file.read(), re.MULTILINE)[1]


def package(name, to):
    """A copy of the package, because building leaves files in its folder."""
    copy = os.path.join(to, "package")
    shutil.copytree(os.path.join(CLIENTS, name), copy, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
    return copy


def install_python(to):
    have_pip = subprocess.run([PYTHON, "-c", "import setuptools, pip, wheel"], capture_output=True, check=False)
    if have_pip.returncode != 0:
        assert not os.environ.get("ALL_CLIENTS"), "no pip: scripts/install-packages clients"
        return package("python", to)
    sh(PYTHON, "-m", "pip", "install", "--quiet", "--no-index", "--no-build-isolation", "--no-deps",
       "--disable-pip-version-check", "--root-user-action=ignore", "--target", f"{to}/site", package("python", to))
    assert os.path.isdir(f"{to}/site/breakerd-{version()}.dist-info")
    assert os.path.exists(f"{to}/site/breakerd/py.typed")
    return f"{to}/site"


def python(kind):
    def build(to):
        return ["env", f"PYTHONPATH={install_python(to)}", PYTHON, "-B", f"{DRIVERS}/driver.py", kind]
    return build


def build_go(to):
    package("go", to)
    os.mkdir(f"{to}/gateway")
    shutil.copy(f"{DRIVERS}/driver.go", f"{to}/gateway")
    with open(f"{to}/gateway/go.mod", "w", encoding="ascii") as file:
        file.write(f"module gateway.test\n\ngo 1.19\n\nrequire breakerd v{version()}\n\nreplace breakerd => ../package\n")
    offline = {"GOPROXY": "off", "GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local"}
    sh("go", "vet", "./...", cwd=f"{to}/package", env=offline)
    sh("go", "build", "-o", "driver", ".", cwd=f"{to}/gateway", env=offline)
    assert sh("gofmt", "-l", f"{CLIENTS}/go", f"{DRIVERS}/driver.go") == ""
    return [f"{to}/gateway/driver"]


def build_node(to):
    sh("npm", "pack", "--silent", package("node", to), cwd=to)
    os.mkdir(f"{to}/gateway")
    with open(f"{to}/gateway/package.json", "w", encoding="ascii") as file:
        file.write('{"private": true, "type": "module"}')
    sh("npm", "install", "--silent", "--offline", "--no-audit", "--no-fund", f"{to}/breakerd-client-{version()}.tgz",
       cwd=f"{to}/gateway")
    shutil.copy(f"{DRIVERS}/driver.mjs", f"{to}/gateway")
    assert os.path.exists(f"{to}/gateway/node_modules/breakerd-client/README.md")
    return ["node", f"{to}/gateway/driver.mjs"]


def build_c(compiler, *flags):
    def build(to):
        sh("make", "-s", "-C", package("c", to), "install", f"PREFIX={to}/prefix")
        env = {"PKG_CONFIG_PATH": f"{to}/prefix/share/pkgconfig"}
        assert sh("pkg-config", "--modversion", "breakerd-client", env=env).strip() == version()
        how = sh("pkg-config", "--cflags", "--libs", "breakerd-client", env=env).split()
        strict = ["-pedantic-errors", "-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror", "-O1", "-g"]
        if os.environ.get("SANITIZED"):
            strict += ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
        sh(*compiler, *flags, *strict, f"{DRIVERS}/driver.c", "-o", f"{to}/driver", *how)
        return [f"{to}/driver"]
    return build


def build_php(to):
    driver = ["php", f"{DRIVERS}/driver.php", f"{to}/gateway/vendor/autoload.php"]
    package("php", to)
    os.mkdir(f"{to}/gateway")
    if not shutil.which("composer"):
        assert not os.environ.get("ALL_CLIENTS"), "no composer: scripts/install-packages clients"
        # composer's autoload.php would do no more than this one.
        os.mkdir(f"{to}/gateway/vendor")
        with open(f"{to}/gateway/vendor/autoload.php", "w", encoding="ascii") as file:
            file.write("<?php require __DIR__ . '/../../package/src/autoload.php';\n")
        return driver
    with open(f"{to}/gateway/composer.json", "w", encoding="ascii") as file:
        json.dump({"repositories": [{"type": "path", "url": "../package", "options": {"symlink": False}}, {"packagist": False}],
                   "require": {"breakerd/client": version()}}, file)
    sh("composer", "install", "--quiet", "--no-interaction", "--no-plugins", cwd=f"{to}/gateway",
       env={"COMPOSER_ALLOW_SUPERUSER": "1", "COMPOSER_HOME": f"{to}/composer", "COMPOSER_DISABLE_NETWORK": "1"})
    return driver


MAVEN_REPOSITORY = "/usr/share/maven-repo"  # from Debian's packages


def install_java(to):
    """The path of the installed jar."""
    if shutil.which("mvn") and os.path.isdir(f"{MAVEN_REPOSITORY}/org/apache/maven/plugins/maven-install-plugin"):
        with open(f"{to}/settings.xml", "w", encoding="ascii") as file:
            file.write("<settings><mirrors><mirror><id>debian</id><mirrorOf>*</mirrorOf>"
                       f"<url>file://{MAVEN_REPOSITORY}</url></mirror></mirrors></settings>")
        sh("mvn", "-q", "-B", "-s", f"{to}/settings.xml", f"-Dmaven.repo.local={to}/m2", "-Dmaven.test.skip=true", "install",
           cwd=package("java", to))
        return f"{to}/m2/breakerd/breakerd-client/{version()}/breakerd-client-{version()}.jar"
    assert not os.environ.get("ALL_CLIENTS"), "no Maven with its plugins: scripts/install-packages clients"
    sources = package("java", to) + "/src/main/java"
    files = [os.path.join(path, name) for path, _, names in os.walk(sources) for name in names]
    sh("javac", "--release", "17", "-d", f"{to}/classes", *files)
    sh("jar", "--create", "--file", f"{to}/breakerd-client.jar", "-C", f"{to}/classes", ".")
    return f"{to}/breakerd-client.jar"


def build_java(to):
    shutil.copy(install_java(to), f"{to}/client.jar")
    sources = f"{to}/package/src/main/java/breakerd"
    sh("javac", "-Xlint:all", "-Werror", "-d", f"{to}/lint", *[f"{sources}/{name}" for name in os.listdir(sources)])
    sh("javac", "-Xlint:all", "-Werror", "-cp", f"{to}/client.jar", "-d", f"{to}/driver", f"{DRIVERS}/Driver.java")
    return ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{to}/client.jar:{to}/driver", "Driver"]


# name: (the tool needed, the command that prints its version, the function that builds the driver and returns its command)
LANGUAGES = {
    "Python": (PYTHON, [PYTHON, "--version"], python("sync")),
    "C": ("curl-config", ["curl-config", "--version"],
          build_c([os.environ.get("CC", "cc")], "-std=c11", "-D_POSIX_C_SOURCE=200809L")),
    "C++": ("c++", ["c++", "-dumpfullversion"], build_c(["c++", "-x", "c++"], "-std=c++11")),
    "Go": ("go", ["go", "version"], build_go),
    "Java": ("javac", ["javac", "-version"], build_java),
    "Node": ("node", ["node", "--version"], build_node),
    "PHP": ("php", ["php", "-r", "echo PHP_VERSION;"], build_php),
    "shell": ("curl", ["curl", "--version"], lambda to: ["sh", f"{DRIVERS}/driver.sh", package("shell", to) + "/breakerd.sh"]),
    "asyncio": (PYTHON, [PYTHON, "--version"], python("async")),
}


def run_c(to, source, compiler="cc"):
    how = sh("pkg-config", "--cflags", "--libs", "breakerd-client", env={"PKG_CONFIG_PATH": f"{to}/prefix/share/pkgconfig"})
    sh(compiler, source, "-o", f"{source}.out", *how.split())
    return sh(f"{source}.out")


def run_beside(to, source, *command):
    """Runs the example in the folder of a gateway that has the package installed."""
    there = shutil.copy(source, f"{to}/gateway")
    return sh(*command, there, cwd=f"{to}/gateway")


def run_go(to, source):
    main = os.path.join(to, "gateway", "example")
    os.makedirs(main, exist_ok=True)
    shutil.copy(source, f"{main}/main.go")
    return sh("go", "run", "./example", cwd=f"{to}/gateway", env={"GOPROXY": "off", "GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local"})


def run_shell(to, source):
    shutil.copy(source, f"{to}/package")
    return sh("sh", os.path.basename(source), cwd=f"{to}/package")


def run_python(to, source):
    site = f"{to}/site" if os.path.isdir(f"{to}/site") else f"{to}/package"
    return sh(PYTHON, "-B", source, env={"PYTHONPATH": site})


# name: (README.md's folder, the language mark of its example, the file's name, the function that runs it)
EXAMPLES = {
    "C": ("c", "c", "example.c", run_c),
    "C++": ("c", "c", "example.cpp", lambda to, source: run_c(to, source, "c++")),
    "Go": ("go", "go", "example.go", run_go),
    "Java": ("java", "java", "Example.java",
             lambda to, source: sh("java", "-cp", f"{to}/client.jar", source)),
    "Node": ("node", "js", "example.mjs", lambda to, source: run_beside(to, source, "node")),
    "PHP": ("php", "php", "example.php", lambda to, source: run_beside(to, source, "php")),
    "Python": ("python", "python", "example.py", run_python),
    "asyncio": ("python", "python", "example.py", run_python),
    "shell": ("shell", "sh", "example.sh", run_shell),
}
HEAVY = ("Go", "Java")  # their tools are hundreds of megabytes
