"""The VirtualMachineInstance as KubeVirt's conditions see it, in both spellings.

A domain hook's condition names a field as the Go type does (`vmi.Spec.Domain.CPU.Cores`), a node hook's as
JSON does (`vmi.spec.domain.cpu.cores`). Neither name follows from the other, so the table has both. It has the
fields of KubeVirt 1.9 that conditions are likely to read. Any other field is refused, so add it here first.
"""

from typing import NamedTuple

STRING, BOOL, INT, UINT, STRINGS = "string", "bool", "int", "uint", "map of strings"


class Field(NamedTuple):
    """A field: its names in Go and in JSON, and its type. The type is the name of a scalar or of a map, a
    tuple with the fields of an object, or a list with the type of its items."""

    go: str
    json: str
    type: object
    # Node hooks have no name for the fields of a Go struct that is embedded without a JSON name.
    go_only: bool = False


def fields(**table):
    """The fields of an object: Go's name, then the rest of a `Field`."""
    return tuple(Field(go, *rest) for go, rest in table.items())


# Conditions can only ask whether they are there.
QUANTITY = TIME = fields()

METADATA = fields(
    Name=("name", STRING),
    GenerateName=("generateName", STRING),
    Namespace=("namespace", STRING),
    UID=("uid", STRING),
    ResourceVersion=("resourceVersion", STRING),
    Generation=("generation", INT),
    CreationTimestamp=("creationTimestamp", TIME),
    DeletionTimestamp=("deletionTimestamp", TIME),
    Labels=("labels", STRINGS),
    Annotations=("annotations", STRINGS),
    Finalizers=("finalizers", [STRING]),
    OwnerReferences=(
        "ownerReferences",
        [fields(APIVersion=("apiVersion", STRING), Kind=("kind", STRING), Name=("name", STRING))],
    ),
)

CPU = fields(
    Cores=("cores", UINT),
    Sockets=("sockets", UINT),
    MaxSockets=("maxSockets", UINT),
    Threads=("threads", UINT),
    Model=("model", STRING),
    Features=("features", [fields(Name=("name", STRING), Policy=("policy", STRING))]),
    DedicatedCPUPlacement=("dedicatedCpuPlacement", BOOL),
    IsolateEmulatorThread=("isolateEmulatorThread", BOOL),
)

MEMORY = fields(
    Guest=("guest", QUANTITY),
    MaxGuest=("maxGuest", QUANTITY),
    Hugepages=("hugepages", fields(PageSize=("pageSize", STRING))),
)

BUS = fields(Bus=("bus", STRING), ReadOnly=("readonly", BOOL))

DISK = fields(
    Name=("name", STRING),
    Disk=("disk", BUS, True),
    LUN=("lun", BUS, True),
    CDRom=("cdrom", fields(Bus=("bus", STRING), ReadOnly=("readonly", BOOL), Tray=("tray", STRING)), True),
    BootOrder=("bootOrder", UINT),
    Serial=("serial", STRING),
    Cache=("cache", STRING),
    IO=("io", STRING),
    Tag=("tag", STRING),
)

INTERFACE = fields(
    Name=("name", STRING),
    Model=("model", STRING),
    MacAddress=("macAddress", STRING),
    BootOrder=("bootOrder", UINT),
    PciAddress=("pciAddress", STRING),
    Tag=("tag", STRING),
    State=("state", STRING),
    Bridge=("bridge", fields(), True),
    Masquerade=("masquerade", fields(), True),
    SRIOV=("sriov", fields(), True),
    Binding=("binding", fields(Name=("name", STRING))),
)

DEVICE = fields(Name=("name", STRING), DeviceName=("deviceName", STRING), Tag=("tag", STRING))

DEVICES = fields(
    Disks=("disks", [DISK]),
    Interfaces=("interfaces", [INTERFACE]),
    GPUs=("gpus", [DEVICE]),
    HostDevices=("hostDevices", [DEVICE]),
    Rng=("rng", fields()),
    AutoattachGraphicsDevice=("autoattachGraphicsDevice", BOOL),
    AutoattachMemBalloon=("autoattachMemBalloon", BOOL),
)

FIRMWARE = fields(
    UUID=("uuid", STRING),
    Serial=("serial", STRING),
    Bootloader=(
        "bootloader",
        fields(
            BIOS=("bios", fields(UseSerial=("useSerial", BOOL))),
            EFI=("efi", fields(SecureBoot=("secureBoot", BOOL), Persistent=("persistent", BOOL))),
        ),
    ),
)

DOMAIN = fields(
    CPU=("cpu", CPU),
    Memory=("memory", MEMORY),
    Machine=("machine", fields(Type=("type", STRING))),
    Firmware=("firmware", FIRMWARE),
    Devices=("devices", DEVICES),
    IOThreadsPolicy=("ioThreadsPolicy", STRING),
    Chassis=(
        "chassis",
        fields(
            Manufacturer=("manufacturer", STRING),
            Version=("version", STRING),
            Serial=("serial", STRING),
            Asset=("asset", STRING),
            Sku=("sku", STRING),
        ),
    ),
    LaunchSecurity=("launchSecurity", fields(SEV=("sev", fields()), TDX=("tdx", fields()))),
)

SPEC = fields(
    Domain=("domain", DOMAIN),
    NodeSelector=("nodeSelector", STRINGS),
    PriorityClassName=("priorityClassName", STRING),
    SchedulerName=("schedulerName", STRING),
    EvictionStrategy=("evictionStrategy", STRING),
    TerminationGracePeriodSeconds=("terminationGracePeriodSeconds", INT),
    Hostname=("hostname", STRING),
    Subdomain=("subdomain", STRING),
    Architecture=("architecture", STRING),
    Networks=("networks", [fields(Name=("name", STRING))]),
    Volumes=("volumes", [fields(Name=("name", STRING))]),
)

STATUS = fields(
    NodeName=("nodeName", STRING),
    Phase=("phase", STRING),
    Reason=("reason", STRING),
    MigrationMethod=("migrationMethod", STRING),
    QOSClass=("qosClass", STRING),
    LauncherContainerImageVersion=("launcherContainerImageVersion", STRING),
    RuntimeUser=("runtimeUser", UINT),
    Interfaces=(
        "interfaces",
        [fields(Name=("name", STRING), IP=("ipAddress", STRING), PodInterfaceName=("podInterfaceName", STRING))],
    ),
)

TYPE = fields(Kind=("kind", STRING, True), APIVersion=("apiVersion", STRING, True))

VMI = (
    *TYPE,
    # The metadata's fields, without `ObjectMeta`. JSON has them in `metadata` only.
    *(field._replace(go_only=True) for field in METADATA),
    Field("ObjectMeta", "metadata", METADATA),
    Field("Spec", "spec", SPEC),
    Field("Status", "status", STATUS),
)
