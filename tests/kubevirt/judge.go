// The judge runs KubeVirt's own code on request. `.ci/kubevirt` builds it inside of KubeVirt's module, where
// that code can be reached, and writes the requests: one JSON object a line on stdin. Each gets one line of
// JSON on stdout. Log lines of KubeVirt go to stderr.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/google/cel-go/cel"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/client-go/tools/cache"
	v1 "kubevirt.io/api/core/v1"
	pluginv1alpha1 "kubevirt.io/api/plugin/v1alpha1"
	"libvirt.org/go/libvirtxml"

	passtserver "kubevirt.io/kubevirt/cmd/sidecars/network-passt-binding/server"
	cloudinit "kubevirt.io/kubevirt/pkg/cloud-init"
	"kubevirt.io/kubevirt/pkg/hooks"
	hooksv1alpha3 "kubevirt.io/kubevirt/pkg/hooks/v1alpha3"
	"kubevirt.io/kubevirt/pkg/os/disk"
	nodecel "kubevirt.io/kubevirt/pkg/plugins/cel"
	"kubevirt.io/kubevirt/pkg/testutils"
	"kubevirt.io/kubevirt/pkg/virt-api/webhooks/validating-webhook/admitters"
	virtconfig "kubevirt.io/kubevirt/pkg/virt-config"
	nodehooks "kubevirt.io/kubevirt/pkg/virt-handler/plugins"
	"kubevirt.io/kubevirt/pkg/virt-launcher/virtwrap/api"
	"kubevirt.io/kubevirt/pkg/virt-launcher/virtwrap/cli"
	"kubevirt.io/kubevirt/pkg/virt-launcher/virtwrap/converter"
	"kubevirt.io/kubevirt/pkg/virt-launcher/virtwrap/converter/arch"
	"kubevirt.io/kubevirt/pkg/virt-launcher/virtwrap/converter/translate"
	convertertypes "kubevirt.io/kubevirt/pkg/virt-launcher/virtwrap/converter/types"
	"kubevirt.io/kubevirt/pkg/virt-launcher/virtwrap/plugins"
	domaincel "kubevirt.io/kubevirt/pkg/virt-launcher/virtwrap/plugins/cel"
	launcherutil "kubevirt.io/kubevirt/pkg/virt-launcher/virtwrap/util"
	"kubevirt.io/kubevirt/pkg/virt-operator/resource/generate/components/validatingadmissionpolicies"
)

// How long the sockets of sidecars may take to appear.
const collectTimeout = 20 * time.Second

// The longest request: a domain and a VMI of 4 MiB each, escaped.
const maxRequestBytes = 64 << 20

type request struct {
	Do         string
	Object     json.RawMessage
	Cluster    v1.KubeVirtConfiguration
	Kind       string // of a condition: domain or node
	Expression string
	VMI        *v1.VirtualMachineInstance
	Domain     string
	Plugins    []pluginv1alpha1.Plugin
	Times      int
	Sidecars   uint
	HookPoint  pluginv1alpha1.NodeHookPoint
	Binding    string
	CloudInit  *cloudinit.CloudInitData
}

type response struct {
	Error     string                   `json:"error,omitempty"`
	Value     bool                     `json:"value"`
	Domains   []string                 `json:"domains,omitempty"`
	CloudInit *cloudinit.CloudInitData `json:"cloudInit,omitempty"`
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, maxRequestBytes)
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	for lines.Scan() {
		var asked request
		var reply response
		err := json.Unmarshal(lines.Bytes(), &asked)
		if err == nil {
			reply, err = answer(asked)
		}
		if err != nil {
			reply.Error = err.Error()
		}
		if err := out.Encode(reply); err != nil {
			panic(err)
		}
	}
	if err := lines.Err(); err != nil {
		panic(err)
	}
}

func answer(asked request) (response, error) {
	switch asked.Do {
	case "admit":
		return response{}, admit(asked)
	case "compile":
		return response{}, compile(asked.Kind, asked.Expression)
	case "evaluate":
		value, err := evaluate(asked.Kind, asked.Expression, asked.VMI)
		return response{Value: value}, err
	case "convert":
		domain, err := convert(asked.VMI)
		return response{Domains: []string{domain}}, err
	case "collect":
		return response{}, hooks.GetManager().Collect(asked.Sidecars, collectTimeout)
	case "define":
		domains, err := define(asked)
		return response{Domains: domains}, err
	case "node":
		return response{}, node(asked)
	case "cloudInit":
		data, err := hooks.GetManager().PreCloudInitIso(asked.VMI, asked.CloudInit)
		return response{CloudInit: data}, err
	case "passt":
		domain, err := passt(asked)
		return response{Domains: []string{domain}}, err
	case "shutdown":
		return response{}, hooks.GetManager().Shutdown()
	}
	return response{}, fmt.Errorf("unknown request %q", asked.Do)
}

// admit judges an object as the API server with KubeVirt does: no unknown fields (it would prune them, and they
// would do nothing), and what KubeVirt's webhooks and policies check.
func admit(asked request) error {
	var kind metav1.TypeMeta
	if err := json.Unmarshal(asked.Object, &kind); err != nil {
		return err
	}
	switch kind.APIVersion + " " + kind.Kind {
	case "plugin.kubevirt.io/v1alpha1 Plugin":
		return admitPlugin(asked.Object)
	case "kubevirt.io/v1 VirtualMachine":
		return admitMachine(asked.Object, &asked.Cluster)
	case "kubevirt.io/v1 KubeVirt":
		return decode(asked.Object, &v1.KubeVirt{})
	}
	return fmt.Errorf("KubeVirt has no %s %s", kind.APIVersion, kind.Kind)
}

// decode refuses unknown fields.
func decode(object json.RawMessage, into any) error {
	strict := json.NewDecoder(bytes.NewReader(object))
	strict.DisallowUnknownFields()
	return strict.Decode(into)
}

func admitMachine(object json.RawMessage, cluster *v1.KubeVirtConfiguration) error {
	machine := &v1.VirtualMachine{}
	if err := decode(object, machine); err != nil {
		return err
	}
	config, _, _ := testutils.NewFakeClusterConfigUsingKVConfig(cluster)
	path := field.NewPath("spec")
	causes := admitters.ValidateVirtualMachineSpec(path, &machine.Spec, config, false)
	template := machine.Spec.Template
	metadata := path.Child("template", "metadata")
	causes = append(causes,
		admitters.ValidateVirtualMachineInstanceMetadata(metadata, &template.ObjectMeta, config, false)...)
	if len(causes) > 0 {
		return fmt.Errorf("the webhook refuses it: %s: %s", causes[0].Field, causes[0].Message)
	}
	_, err := hooks.UnmarshalHookSidecarList(&v1.VirtualMachineInstance{ObjectMeta: template.ObjectMeta})
	return err
}

func admitPlugin(object json.RawMessage) error {
	if err := decode(object, &pluginv1alpha1.Plugin{}); err != nil {
		return err
	}
	reviewed := admitters.NewPluginAdmitter(config()).Admit(context.Background(), &admissionv1.AdmissionReview{
		Request: &admissionv1.AdmissionRequest{
			Operation: admissionv1.Create,
			Resource:  metav1.GroupVersionResource{Group: "plugin.kubevirt.io", Version: "v1alpha1", Resource: "plugins"},
			Object:    runtime.RawExtension{Raw: object},
		},
	})
	if !reviewed.Allowed {
		return fmt.Errorf("the webhook refuses it: %s", reviewed.Result.Message)
	}
	return validate(object)
}

// config is a cluster's with the feature gate Plugins.
func config() *virtconfig.ClusterConfig {
	config, _, _ := testutils.NewFakeClusterConfigUsingKVConfig(&v1.KubeVirtConfiguration{
		DeveloperConfiguration: &v1.DeveloperConfiguration{FeatureGates: []string{"Plugins"}},
	})
	return config
}

// validate evaluates the expressions of KubeVirt's admission policy for Plugins.
func validate(object json.RawMessage) error {
	var content map[string]any
	if err := json.Unmarshal(object, &content); err != nil {
		return err
	}
	env, err := cel.NewEnv(cel.Variable("object", cel.DynType))
	if err != nil {
		return err
	}
	for _, rule := range validatingadmissionpolicies.NewPluginValidatingAdmissionPolicy().Spec.Validations {
		ast, issues := env.Compile(rule.Expression)
		if issues.Err() != nil {
			return issues.Err()
		}
		program, err := env.Program(ast)
		if err != nil {
			return err
		}
		value, _, err := program.Eval(map[string]any{"object": content})
		if err != nil {
			return err
		}
		if value.Value() != true {
			return fmt.Errorf("the policy refuses it: %s", rule.Message)
		}
	}
	return nil
}

func compile(kind, expression string) error {
	if kind == "domain" {
		return domaincel.GetEvaluator().CompileCondition(expression)
	}
	evaluator, err := nodecel.NewEvaluator()
	if err != nil {
		return err
	}
	return evaluator.CompileCondition(expression)
}

func evaluate(kind, expression string, vmi *v1.VirtualMachineInstance) (bool, error) {
	if kind == "domain" {
		return domaincel.GetEvaluator().EvaluateCondition(expression, vmi, &libvirtxml.Domain{})
	}
	evaluator, err := nodecel.NewEvaluator()
	if err != nil {
		return false, err
	}
	return evaluator.EvaluateCondition(expression, map[string]any{"vmi": vmi})
}

// images knows paths, and creates nothing.
type images struct{}

func (images) CreateBackedImageForVolume(v1.Volume, string, string) error          { return nil }
func (images) CreateEphemeralImages(*v1.VirtualMachineInstance, *api.Domain) error { return nil }
func (images) GetFilePath(volume string) string                                    { return "/var/run/images/" + volume }
func (images) Init() error                                                         { return nil }

// convert makes a VM's domain, as virt-launcher sends it to the first hook.
func convert(vmi *v1.VirtualMachineInstance) (string, error) {
	if vmi.Spec.Architecture == "" {
		vmi.Spec.Architecture = "amd64"
	}
	disks := map[string]*disk.DiskInfo{}
	for _, volume := range vmi.Spec.Volumes {
		disks[volume.Name] = &disk.DiskInfo{Format: "qcow2"}
	}
	domain := &api.Domain{}
	err := converter.Convert_v1_VirtualMachineInstance_To_api_Domain(vmi, domain, &convertertypes.ConverterContext{
		Architecture:              arch.NewConverter(vmi.Spec.Architecture),
		AllowEmulation:            true,
		HypervisorDeviceAvailable: true,
		VirtualMachine:            vmi,
		EphemeraldiskCreator:      images{},
		DisksInfo:                 disks,
		MemBalloonStatsPeriod:     10,
		FreePageReporting:         true,
	})
	if err != nil {
		return "", err
	}
	api.NewDefaulter(vmi.Spec.Architecture).SetObjectDefaults_Domain(domain)
	for i := range domain.Spec.Devices.Interfaces {
		// The set-up of the pod's network does that.
		domain.Spec.Devices.Interfaces[i].Type = "ethernet"
	}
	text, err := xml.MarshalIndent(domain.Spec, "", "\t")
	return string(text), err
}

// libvirt keeps what virt-launcher defines.
type libvirt struct {
	cli.Connection
	defined []string
}

func (l *libvirt) DomainDefineXML(domain string) (cli.VirDomain, error) {
	l.defined = append(l.defined, domain)
	return nil, nil
}

// define does what virt-launcher does several times in a boot: sends the domain to the sidecars, then to the
// Plugins, and hands the result to libvirt. The next round begins with the result of the one before.
func define(asked request) ([]string, error) {
	spec := &api.DomainSpec{}
	if err := xml.Unmarshal([]byte(asked.Domain), spec); err != nil {
		return nil, err
	}
	translate.TransferQEMUCommandline(asked.Domain, spec)
	spec.XmlNS = "http://libvirt.org/schemas/domain/qemu/1.0" // a default of KubeVirt's
	plugins.SetPlugins(asked.Plugins)
	defer plugins.SetPlugins(nil)
	connection := &libvirt{}
	for range asked.Times {
		if _, err := launcherutil.SetDomainSpecStrWithHooks(connection, asked.VMI, spec); err != nil {
			return connection.defined, err
		}
	}
	if len(connection.defined) != asked.Times {
		return nil, errors.New("libvirt was not called each time")
	}
	return connection.defined, nil
}

// node calls the node hooks of Plugins as virt-handler does.
func node(asked request) error {
	store := cache.NewStore(cache.MetaNamespaceKeyFunc)
	for i := range asked.Plugins {
		if err := store.Add(&asked.Plugins[i]); err != nil {
			return err
		}
	}
	manager, err := nodehooks.NewNodeHookManager(store, config())
	if err != nil {
		return err
	}
	return manager.CallNodeHooks(asked.HookPoint, asked.VMI, "node01")
}

// passt does what KubeVirt's network binding plugin for passt does.
func passt(asked request) (string, error) {
	vmi, err := json.Marshal(asked.VMI)
	if err != nil {
		return "", err
	}
	plugin := passtserver.V1alpha3Server{BindingPluginName: asked.Binding}
	result, err := plugin.OnDefineDomain(context.Background(), &hooksv1alpha3.OnDefineDomainParams{
		DomainXML: []byte(asked.Domain),
		Vmi:       vmi,
	})
	return string(result.GetDomainXML()), err
}
