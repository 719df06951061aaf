//! Programs out of Debian's packages, for tests.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::{run, works};
use crate::workspace::cache;

/// A program, the package that has it, its path there, and a flag with which it does nothing.
pub(crate) struct Program {
    package: &'static str,
    path: &'static str,
    flag: &'static str,
}

/// The balancer.
pub(crate) const HAPROXY: Program = Program { package: "haproxy", path: "usr/sbin/haproxy", flag: "-v" };

/// The judge of systemd's units.
pub(crate) const SYSTEMD_ANALYZE: Program =
    Program { package: "systemd", path: "usr/bin/systemd-analyze", flag: "--version" };

impl Program {
    /// Where the program is: where it is installed, else unpacked below `.cache/debian/`, with whatever it needs that is not
    /// installed. Nothing is installed, and no rights are needed. apt checks signatures; the version is the newest of
    /// the release that runs here, since Debian's mirrors keep no other.
    pub(crate) fn find(&self) -> Result<PathBuf> {
        if let Some(path) = self.installed() {
            return Ok(path);
        }
        let directory = cache("debian").join(self.package);
        let start = directory.join("start");
        if !works(Command::new(&start).arg(self.flag)) {
            self.fetch(&directory).with_context(|| {
                format!(
                    "cannot fetch {package}; install it (Debian and Ubuntu: apt-get install {package})",
                    package = self.package
                )
            })?;
            run(Command::new(&start).arg(self.flag))?;
        }
        Ok(start)
    }

    fn installed(&self) -> Option<PathBuf> {
        let name = Path::new(self.path).file_name()?;
        let path = env::var_os("PATH").unwrap_or_default();
        let places = env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
        places.map(|place| place.join(name)).find(|path| works(Command::new(path).arg(self.flag)))
    }

    /// Unpacks beside the directory and puts it into place when it is complete.
    fn fetch(&self, directory: &Path) -> Result<()> {
        let parent = directory.parent().context("a directory has a parent")?;
        fs::create_dir_all(parent)?;
        let work = tempfile::tempdir_in(parent)?;
        let (packages, fresh) = (work.path().join("packages"), work.path().join(self.package));
        self.download(work.path(), &packages)?;
        for entry in fs::read_dir(&packages)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                run(Command::new("dpkg-deb").arg("--extract").arg(path).arg(&fresh))?;
            }
        }
        self.write_start(&fresh)?;
        if directory.exists() {
            fs::remove_dir_all(directory)?;
        }
        fs::rename(&fresh, directory)?;
        Ok(())
    }

    /// Downloads the package and what it needs, by lists of the moment's versions.
    fn download(&self, work: &Path, packages: &Path) -> Result<()> {
        let lists = work.join("lists");
        fs::create_dir_all(lists.join("partial"))?;
        fs::create_dir_all(packages.join("partial"))?;
        let apt = || {
            let mut apt = Command::new("apt-get");
            apt.args([
                "--quiet",
                "--quiet",
                "--option",
                "Debug::NoLocking=1",
                "--option",
                "APT::Sandbox::User=",
            ]);
            for (place, path) in
                [("State::lists", lists.as_path()), ("Cache", work), ("Cache::archives", packages)]
            {
                apt.arg("--option").arg(format!("Dir::{place}={}", path.display()));
            }
            apt
        };
        run(apt().arg("update"))?;
        run(apt().args(["install", "--download-only", "--yes", "--no-install-recommends", self.package]))
    }

    /// A script that starts the program with the libraries beside it.
    fn write_start(&self, root: &Path) -> Result<()> {
        let libraries = format!("$here/usr/lib/{}-linux-gnu", env::consts::ARCH);
        let script = format!(
            "#!/bin/sh\n\
             here=$(dirname \"$(readlink -f \"$0\")\")\n\
             export LD_LIBRARY_PATH=\"{libraries}:{libraries}/systemd\"\n\
             exec \"$here/{}\" \"$@\"\n",
            self.path
        );
        let start = root.join("start");
        fs::write(&start, script)?;
        fs::set_permissions(&start, fs::Permissions::from_mode(0o755))?;
        Ok(())
    }
}
