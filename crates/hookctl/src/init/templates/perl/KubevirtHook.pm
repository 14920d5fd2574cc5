package KubevirtHook;

# Runs hooks of KubeVirt as a worker of sidecar-shim: the protocol of its protocol.md, with perl's
# own modules only.
use strict;
use warnings;
use Encode qw(decode_utf8 encode_utf8);
use Exporter qw(import);
use JSON::PP;

our @EXPORT_OK = qw(refuse xml_text);
use constant MAX_FRAME => 0xffffff;
my $json = JSON::PP->new->utf8->allow_nonref;

# Refuses the VM. Its owner reads the text.
sub refuse { die { code => -32000, message => $_[0] } }

# Returns a text as XML has it, in an element or an attribute.
sub xml_text { return $_[0] =~ s/([<>&"'])/'&#' . ord($1) . ';'/ger }

# Runs the hooks: pairs of a name and a function. Each function gets the VMI and the domain, the
# cloud-init data or the node's name. It returns the new document, or nothing if it stays.
sub run {
    my ($name, $version, %hooks) = @_;
    if (!delete $ENV{KUBEVIRT_HOOK_PROTOCOL}) {
        print STDERR "$name: start it with sidecar-shim --mode persistent, or hookctl call\n";
        exit 2;
    }
    # What the hook prints goes to stderr, and so to the log. Its child processes read nothing.
    open(my $frames, '>&', \*STDOUT) && open(STDOUT, '>&', \*STDERR) or die "stdout: $!\n";
    open(my $input, '<&', \*STDIN) && open(STDIN, '<', '/dev/null') or die "stdin: $!\n";
    binmode $_ for $input, $frames;
    binmode STDERR, ':encoding(UTF-8)';
    while (defined(my $message = _frame($input, 'may end'))) {
        my $call = eval { $json->decode($message) };
        die "a message is not a JSON object\n" if ref $call ne 'HASH';
        for my $member (@{ $call->{attachments} // [] }) {
            my $bytes = _frame($input);
            my $is_text = $member eq 'domain';
            $call->{params}{$member} = $is_text ? decode_utf8($bytes) : eval { $json->decode($bytes) };
        }
        next if !exists $call->{id};
        my ($result, @document) = eval { _call($call->{method}, $call->{params}, $name, $version, \%hooks) };
        my %reply = (jsonrpc => '2.0', id => $call->{id}, $result ? (result => $result) : (error => $@));
        $reply{attachments} = ['domain'] if @document;
        if (!$result && !ref $@) {
            my $fault = "a fault in the hook's code";
            # The text may quote a document: it is logged at level debug, its place as an error.
            my ($place) = $@ =~ /( at \S+ line \d+)(?:, <[^<>]*> (?:line|chunk) \d+)?\.\n\z/;
            print STDERR "<3>$fault", $place // '', "\n", $@ =~ s/^/<7>/gmr =~ s/\n?\z/\n/r;
            $reply{error} = { code => -32603, message => "$fault; its log has the trace" };
        }
        print $frames map { pack 'N/a*', $_ } $json->encode(\%reply), @document;
        $frames->flush;
    }
    exit 0;
}

# Returns the result, and the domain as a separate frame if it changes.
sub _call {
    my ($method, $params, $name, $version, $hooks) = @_;
    if ($method eq 'initialize') {
        return { protocolVersion => 1, worker => { name => $name, version => $version },
            hooks => [sort keys %$hooks], capabilities => { attachments => JSON::PP::true } }
            if grep { $_ == 1 } @{ $params->{protocolVersions} };
        die { code => -32602, message => 'no common protocol version', data => { protocolVersions => [1] } };
    }
    my $hook = $hooks->{$method} or die { code => -32601, message => 'unknown method' };
    my ($member) = grep { exists $params->{$_} } qw(domain cloudInitData nodeName);
    my $document = $hook->($params->{vmi}, $params->{$member});
    return {} if $member eq 'nodeName';
    return { unchanged => JSON::PP::true } if !defined $document;
    return { $member => $document } if $member ne 'domain';
    die { code => -32603, message => "$method must return a text, or nothing" } if ref $document;
    return { $member => $document } if $document eq '';    # a frame cannot be empty
    my $bytes = encode_utf8($document);
    refuse('the domain is larger than a frame') if length $bytes > MAX_FRAME;
    return ({}, $bytes);
}

# Returns the next frame, or undef at the end of the input, if it may end here.
sub _frame {
    my ($input, $may_end) = @_;
    my $got = read($input, my $head, 4);
    return undef if $may_end && !$got;
    my $length = length $head == 4 ? unpack('N', $head) : 0;
    die "half a frame, or an invalid length of $length bytes\n" if $length < 1 || $length > MAX_FRAME;
    read($input, my $body, $length) == $length or die "half a frame\n";
    return $body;
}

1;
