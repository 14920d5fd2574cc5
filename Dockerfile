# Two images from one build:
#
#   docker build -t sidecar-shim .                      a drop-in for KubeVirt's image: bash as /bin/sh,
#                                                       Python, the usual commands (the last stage)
#   docker build -t sidecar-shim:static --target shim . nothing but the static program
#
# Both are for amd64, arm64 and s390x, as KubeVirt's is: docker buildx build --platform linux/s390x …
#
# --build-arg REVISION=… (the commit), SOURCE=… (the address of the source) and VERSION=… become
# the labels org.opencontainers.image.*; without REVISION and SOURCE these labels are empty.
#
# No `# syntax=` line and no `--mount`: both would ask for more than the classic builder and an
# offline site have. Every image that is pulled is an argument without a registry, so that a
# mirrored site can name its own: --build-arg RUST_IMAGE=… --build-arg DEBIAN_IMAGE=…

ARG RUST_IMAGE=rust:1.95-slim-bookworm
ARG DEBIAN_IMAGE=debian:bookworm-slim
# Docker's classic builder does not set this, and reads a bare `linux` as its own architecture.
# buildah 1.28 reads it as that of --platform: add --build-arg BUILDPLATFORM=linux/amd64 there.
ARG BUILDPLATFORM=${BUILDPLATFORM:-linux}

# The compiler runs natively and cross-compiles: an emulated one takes many times as long.
FROM --platform=$BUILDPLATFORM ${RUST_IMAGE} AS build
ARG TARGETARCH
WORKDIR /build
COPY . .
# - Without TARGETARCH the target is what the compiler itself runs on.
# - With an explicit --target, RUSTFLAGS leave build scripts and procedural macros alone, which
#   cannot be built with crt-static.
# - Packed, the addresses that the program fixes at its start take 0.2 MB less. Where programs have
#   none (arm64, s390x), the linker ignores the option, or says that it does.
# - One command for each program, so that the shim is built with no feature that hookctl alone needs.
# - The last check stands here because a program that needs a loader fails in an image without one
#   with a mere "no such file or directory", and only once it is in a pod.
# - The target directory goes in the same step, so that no layer holds it.
RUN set -eu; \
    host="$(rustc -vV | sed -n 's/^host: //p')"; \
    case "${TARGETARCH:-}" in \
        '') target="$host" ;; \
        amd64) target=x86_64-unknown-linux-gnu ;; \
        arm64) target=aarch64-unknown-linux-gnu ;; \
        s390x) target=s390x-unknown-linux-gnu ;; \
        *) echo "TARGETARCH is amd64, arm64 or s390x, not $TARGETARCH" >&2; exit 1 ;; \
    esac; \
    if [ "$target" != "$host" ]; then \
        case "$target" in \
            x86_64-*) packages='gcc-x86-64-linux-gnu libc6-dev-amd64-cross' ;; \
            aarch64-*) packages='gcc-aarch64-linux-gnu libc6-dev-arm64-cross' ;; \
            *) packages='gcc-s390x-linux-gnu libc6-dev-s390x-cross' ;; \
        esac; \
        linker="${target%%-*}-linux-gnu-gcc"; \
        if ! command -v "$linker" >/dev/null; then \
            apt-get update; \
            apt-get install -y --no-install-recommends $packages; \
            rm -rf /var/lib/apt/lists/*; \
        fi; \
        if [ ! -d "$(rustc --print target-libdir --target "$target")" ]; then \
            rustup target add "$target"; \
        fi; \
        variable="$(printf '%s' "$target" | tr 'a-z-' 'A-Z_')"; \
        export "CARGO_TARGET_${variable}_LINKER=$linker"; \
    fi; \
    for program in sidecar-shim hookctl; do \
        RUSTFLAGS='-C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs' \
            CARGO_TARGET_DIR=/tmp/target \
            cargo build --locked --release --package "$program" --target "$target"; \
        install -m 0755 "/tmp/target/$target/release/$program" "/$program"; \
        segments="$(readelf --program-headers --wide "/$program")"; \
        case "$segments" in *INTERP*) echo "$program is not static" >&2; exit 1 ;; esac; \
    done; \
    rm -rf /tmp/target


# For hooks that bring all they need, such as static Rust or Go programs: build FROM this one and
# COPY them to where $PATH finds them.
FROM scratch AS shim
# Hooks are looked up in $PATH; an empty image has none, and only some builders and runtimes add it.
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
COPY --from=build /sidecar-shim /sidecar-shim
# KubeVirt sets the user of a VM's pod itself, 107 or (for root VMs) 0, and that wins over this
# line. Whoever else starts the image gets no root unless they ask for it. It is a number because
# `runAsNonRoot` cannot judge a name, and it is virt-launcher's own, which must reach the socket.
USER 107:107
# KubeVirt passes arguments and no command, so this has to be the program, and options have to be
# arguments or SIDECAR_SHIM_… variables.
ENTRYPOINT ["/sidecar-shim"]
# Cargo.toml's version, unless a site numbers its builds otherwise. Last, so that another commit
# leaves the layers as they are.
ARG VERSION=0.1.0
ARG REVISION
ARG SOURCE
LABEL org.opencontainers.image.title="sidecar-shim" \
      org.opencontainers.image.description="KubeVirt hook sidecar that runs hooks as plain programs or long-lived workers" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.source="$SOURCE"


# A drop-in for KubeVirt's own sidecar-shim image, for scripts that a ConfigMap mounts at
# /usr/bin/onDefineDomain: they find the commands there that they find in KubeVirt's, but for vi, and
# the same shell. The default, for being the last.
FROM ${DEBIAN_IMAGE} AS python
# - A base that has all of this is left as it is, so that such a site needs no package mirror.
# - For another architecture than the builder's, this step needs the builder's emulation.
# - Scripts that begin with #!/bin/sh were written for KubeVirt's image, where that is bash, and use
#   it: [[ ]], ${x//a/b}, an `echo` that leaves backslashes alone. The diversions take the place of
#   dash's own; with them, an update of dash leaves the link as it is. Debian 12 has it at /bin/sh,
#   Debian 13 at /usr/bin/sh.
# - Scripts name /usr/bin/python3 in their first line, and /usr/bin/python, which KubeVirt's image
#   lacks.
RUN set -eu; \
    packages=''; \
    for each in bash find:findutils gawk grep sed curl python3; do \
        command -v "${each%:*}" >/dev/null || packages="$packages ${each#*:}"; \
    done; \
    [ -s /etc/ssl/certs/ca-certificates.crt ] || packages="$packages ca-certificates"; \
    if [ -n "$packages" ]; then \
        apt-get update; \
        DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $packages; \
        apt-get clean; \
        rm -rf /var/lib/apt/lists/*; \
    fi; \
    if [ "$(readlink -f /bin/sh)" != "$(readlink -f /bin/bash)" ]; then \
        for path in /bin/sh /usr/bin/sh; do \
            dpkg-divert --no-rename --remove "$path"; \
            dpkg-divert --local --no-rename --divert "$path.distrib" --add "$path"; \
        done; \
        ln -sf bash /bin/sh; \
    fi; \
    for path in /usr/bin/python3 /usr/bin/python; do \
        [ -e "$path" ] || ln -s "$(command -v python3)" "$path"; \
    done
# What hooks in Python import, so that a ConfigMap holds the hook alone. Compiled, because in exec mode
# every call imports it.
COPY sdk/python/kubevirt_hook.py sdk/python/kubevirt_cloud_init.py sdk/python/kubevirt_xml.py /usr/local/lib/sidecar-shim/
RUN set -eu; \
    packages="$(python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"; \
    mkdir -p "$packages"; \
    for module in kubevirt_hook kubevirt_cloud_init kubevirt_xml; do \
        ln -s "/usr/local/lib/sidecar-shim/$module.py" "$packages/"; \
        python3 -m compileall -q "$packages/$module.py"; \
    done
COPY --from=shim /sidecar-shim /sidecar-shim
# For authors, who then need no more than Docker to try and check a hook.
COPY --from=build /hookctl /usr/local/bin/hookctl
# As above. An image built FROM this one needs `USER 0` before it installs packages.
USER 107:107
ENTRYPOINT ["/sidecar-shim"]
ARG VERSION=0.1.0
ARG REVISION
ARG SOURCE
LABEL org.opencontainers.image.title="sidecar-shim" \
      org.opencontainers.image.description="KubeVirt hook sidecar that runs hooks as plain programs or long-lived workers, with Python, bash and the commands of KubeVirt's own image" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.source="$SOURCE"
