<?php // a worker without an SDK, written from protocol.md
function quit($reason, $status = 1) {
    fwrite(STDERR, "worker: $reason\n");
    exit($status);
}

function respond($method, $params) {
    if ($method === 'onDefineDomain') return ['result' => ['unchanged' => true]]; // your hook
    if ($method !== 'initialize') {
        return ['error' => ['code' => -32601, 'message' => 'unknown method']];
    }
    if (in_array(1, $params->protocolVersions)) {
        return ['result' => ['protocolVersion' => 1, 'hooks' => ['onDefineDomain']]];
    }
    return ['error' => ['code' => -32602, 'message' => 'no common version',
                        'data' => ['protocolVersions' => [1]]]];
}

ini_set('display_errors', 'stderr'); // not stdout, which is for frames
if (getenv('KUBEVIRT_HOOK_PROTOCOL') === false) quit('start me with sidecar-shim', 2);
while (($header = stream_get_contents(STDIN, 4)) !== '') {
    $length = strlen($header) === 4 ? unpack('N', $header)[1] : 0;
    if ($length < 1 || $length > 16777215) quit('half a frame, or an invalid length');
    $body = stream_get_contents(STDIN, $length);
    if (strlen($body) < $length) quit('half a frame');
    $message = json_decode($body);
    if (!is_object($message)) quit('a message is not a JSON object in UTF-8');
    if (!isset($message->id)) continue;
    try {
        $response = respond($message->method, $message->params);
    } catch (Throwable $error) {
        $response = ['error' => ['code' => -32603, 'message' => get_class($error)]];
    }
    $text = json_encode(['jsonrpc' => '2.0', 'id' => $message->id] + $response);
    fwrite(STDOUT, pack('N', strlen($text)) . $text);
    fflush(STDOUT);
}
