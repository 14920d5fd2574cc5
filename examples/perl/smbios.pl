#!/usr/bin/perl
# Sets the base board manufacturer in the guest's SMBIOS tables, from an annotation of the VM.
# Written from protocol.md, without an SDK, and with perl's own modules only.
use strict;
use warnings;
use JSON::PP qw(decode_json encode_json);

sub initialize {
    return { protocolVersion => 1, worker => { name => 'smbios-perl', version => '1.0.0' },
        hooks => ['onDefineDomain'], capabilities => { attachments => JSON::PP::true } }
        if grep { $_ == 1 } @{ $_[0]{protocolVersions} };
    die { code => -32602, message => 'no common protocol version', data => { protocolVersions => [1] } };
}

sub on_define_domain {    # returns the result, and the domain as an attachment if it changes
    my ($vmi, $domain) = @{ $_[0] }{qw(vmi domain)};
    my $name = $vmi->{metadata}{annotations}{'smbios.vm.kubevirt.io/baseBoardManufacturer'}
        // return { unchanged => JSON::PP::true };
    utf8::encode($name = $name =~ s/([<>&])/'&#' . ord($1) . ';'/ger);
    my $edit = sub {      # replaces the match of $pattern, outside of comments, with $text
        my ($pattern, $text) = @_;
        my $bare = $domain =~ s/<!--.*?-->|<!\[CDATA\[.*?\]\]>/' ' x length $&/gesr;
        return $bare =~ $pattern && defined substr $domain, $-[1], $+[1] - $-[1], $text;
    };
    my $entry = qq(<entry name="manufacturer">$name</entry>);
    $edit->(qr{<baseBoard>(?:(?!</baseBoard>).)*<entry\s+name=["']manufacturer["']>([^<]*)}s, $name)
        or $edit->(qr{<baseBoard>()}, $entry)
        or $edit->(qr{<sysinfo\s+type=["']smbios["']>()}, "<baseBoard>$entry</baseBoard>")
        or $edit->(qr{()</domain>}, qq(<sysinfo type="smbios"><baseBoard>$entry</baseBoard></sysinfo>));
    $edit->(qr{<smbios\s+mode=["'](\w+)}, 'sysinfo') or $edit->(qr{()</os>}, '<smbios mode="sysinfo"/>');
    return ({}, $domain) if length $domain <= 0xffffff;
    die { code => -32000, message => 'the domain is larger than a frame' };
}

my $input;

sub frame {               # returns the next frame, or undef at EOF if the input may end here
    my ($may_end) = @_;
    read($input, my $head, 4) or $may_end and return undef;
    my $length = length $head == 4 ? unpack('N', $head) : 0;
    die "half a frame, or an invalid length of $length bytes\n" if $length < 1 or $length > 0xffffff;
    read($input, my $body, $length) == $length or die "half a frame\n";
    return $body;
}

delete $ENV{KUBEVIRT_HOOK_PROTOCOL} or print STDERR "start me with sidecar-shim --mode persistent\n" and exit 2;
open(my $frames, '>&', \*STDOUT) && open(STDOUT, '>&', \*STDERR) or die "stdout: $!\n";
open($input, '<&', \*STDIN) && open(STDIN, '<', '/dev/null') or die "stdin: $!\n";    # not for child processes
binmode $_ for $input, $frames;
my %methods = (initialize => \&initialize, onDefineDomain => \&on_define_domain);
while (defined(my $message = frame('may end'))) {
    my $call = eval { decode_json($message) } or die "a message is not valid JSON\n";
    $call->{params}{$_} = $_ eq 'domain' ? frame() : decode_json(frame()) for @{ $call->{attachments} // [] };
    next unless exists $call->{id};
    my $method = $methods{ $call->{method} } // sub { die { code => -32601, message => 'unknown method' } };
    my ($result, @attached) = eval { $method->($call->{params}) };
    my %answer = (jsonrpc => '2.0', id => $call->{id}, $result ? (result => $result) : (error => $@));
    $answer{attachments} = ['domain'] if @attached;
    if (!$result and !ref $@) {    # the text may quote a document: it is logged at level debug
        print STDERR $@ =~ s/^/<7>/gmr;
        $answer{error} = { code => -32603, message => "a fault in the hook's code: see its log at level debug" };
    }
    print $frames map { pack 'N/a*', $_ } encode_json(\%answer), @attached;
    $frames->flush;
}
