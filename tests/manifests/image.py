"""The images of the manifests, as the commands of their README and their Dockerfiles make them."""

import json
import re
import shutil

import api


class Image:
    """What one Dockerfile puts on top of the shim's image. `context` is the directory that it is built in."""

    def __init__(self, dockerfile, context):
        self.copies = []
        for instruction, words in re.findall(r"^([A-Z]+) (.*)$", dockerfile, re.MULTILINE):
            if instruction == "COPY":
                *sources, target = words.split()
                assert target.endswith("/"), f"{target} is not a directory"
                self.copies += [(context / source, target) for source in sources]
            elif instruction == "ENTRYPOINT":
                self.entry_point = json.loads(words)
            else:
                assert instruction == "FROM", f"{instruction} is not read here"

    def command(self, shim, directory, args):
        """The command line of a container with these args, and with the image's files in a directory of
        this machine."""
        words = [*self.entry_point, *args]
        assert words[0] == "/sidecar-shim"
        for source, target in self.copies:
            shutil.copy(source, directory)
            words = [word.replace(f"{target}{source.name}", str(directory / source.name)) for word in words]
        return [str(shim), *words[1:]]


def images():
    """The images by their names in the manifests: `smbios-hook` for registry.example/smbios-hook:1.0.0."""
    readme = (api.MANIFESTS / "README.md").read_text()
    # The shim's own image has nothing but its entry point.
    found = {"sidecar-shim": Image('ENTRYPOINT ["/sidecar-shim"]', api.ROOT)}
    commands = r"^docker build -t registry\.example/(\S+):\S+ -f (\S+) (\S+)$"
    for name, dockerfile, context in re.findall(commands, readme, re.MULTILINE):
        found[name] = Image((api.ROOT / dockerfile).read_text(), api.ROOT / context)
    return found


def name_of(reference):
    """`smbios-hook` of registry.example/smbios-hook:1.0.0"""
    return re.fullmatch(r"registry\.example/([a-z-]+):[0-9.]+", reference).group(1)
