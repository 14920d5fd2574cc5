"""The images of the manifests, as the Dockerfiles in their README make them."""

import json
import re
import shutil

import api


class Image:
    """What one Dockerfile of the README puts on top of the shim's image."""

    def __init__(self, dockerfile):
        self.copies = []
        for instruction, *words in (line.split(maxsplit=1) for line in dockerfile.splitlines() if line):
            if instruction == "COPY":
                *sources, target = words[0].split()
                self.copies += [(api.ROOT / source, target) for source in sources]
            elif instruction == "ENTRYPOINT":
                self.entry_point = json.loads(words[0])
            else:
                assert instruction == "FROM", f"{instruction} is not read here"

    def command(self, shim, directory, args):
        """The command line of a container with these args, and with the image's files in a directory of
        this machine."""
        words = [*self.entry_point, *args]
        assert words[0] == "/sidecar-shim"
        for source, target in self.copies:
            assert target.endswith("/"), f"{target} is not a directory"
            shutil.copy(source, directory)
            words = [word.replace(f"{target}{source.name}", str(directory / source.name)) for word in words]
        return [str(shim), *words[1:]]


def images():
    """The images by their names in the manifests: `smbios-hook` for registry.example/smbios-hook:1.0.0. The
    name stands in the `docker build` below each Dockerfile."""
    readme = (api.MANIFESTS / "README.md").read_text()
    pattern = r"```dockerfile\n(.*?)```\n\n```sh\n.*?docker build -t registry\.example/([a-z-]+):"
    return {name: Image(text) for text, name in re.findall(pattern, readme, re.DOTALL)}


def name_of(reference):
    """`smbios-hook` of registry.example/smbios-hook:1.0.0"""
    return re.fullmatch(r"registry\.example/([a-z-]+):[0-9.]+", reference).group(1)
