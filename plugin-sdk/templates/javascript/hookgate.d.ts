// What a script is given and what it answers. For editors; nothing needs it to run.
//
// Time and chance are the event's own: `Date.now()` is its timestamp, `Math.random()` gives the
// same numbers for the same event. There is no network, no file, no timer, no `require`.
// `console.log` writes to the plugin's log.

export interface Plugin {
  /** Takes what the plugin is configured with, before anything else. To refuse it, throw. */
  configure?(config: Record<string, string>): void;
  /** Whether an endpoint gets an event. */
  filter?(event: Event): boolean | Drop;
  /** What an endpoint gets: nothing returned leaves it as it is, an array is several requests. */
  transform?(event: Event): void | Drop | Outgoing | Outgoing[];
  /** Judges an event before it is stored, for all endpoints of the tenant. */
  ingest?(event: Incoming): void | true | Reject | Replacement;
  /** What an endpoint's answer means; nothing returned leaves it to the status. */
  classify?(response: Response): void | "success" | { failure: string } | { final: string };
  /** The headers that sign a request. */
  sign?(request: Request, keys: Keys): Record<string, string>;
}

export interface Event {
  id: string;
  type: string;
  /** When it happened, in milliseconds since 1970. */
  timestamp: number;
  contentType: string;
  metadata: Record<string, string>;
  orderingKey?: string;
  /** Parsed where it is JSON, else the text. */
  data: any;
}

export interface Incoming {
  /** The producer's own id, if it chose one. */
  id?: string;
  type: string;
  timestamp: number;
  metadata: Record<string, string>;
  orderingKey?: string;
  data: any;
  /** The text that `data` was parsed from. */
  raw: string;
}

export type Drop = { drop: string };
export type Reject = { reject: string };

export interface Outgoing {
  /** Sent as JSON; without it, and without `body`, the event's data goes out as it came. */
  data?: any;
  /** Sent as it is, in place of `data`. */
  body?: string;
  contentType?: string;
  headers?: Record<string, string>;
  /** Appended to the path of the endpoint's URL. */
  path?: string;
}

/** What is left out stays as it came. */
export interface Replacement {
  type?: string;
  data?: any;
  metadata?: Record<string, string>;
  orderingKey?: string | null;
}

export interface Response {
  status: number;
  /** Names in lower case. */
  headers: Record<string, string>;
  /** The first bytes of it, as text. */
  body: string;
  /** The body parsed, where it is JSON. */
  data?: any;
}

export interface Request {
  id: string;
  /** In seconds since 1970. */
  timestamp: number;
  path: string;
  headers: Record<string, string>;
  body: string;
  bytes: Uint8Array;
}

/** HMACs under the endpoint's secrets, which never enter the plugin. */
export interface Keys {
  /** In hexadecimal digits, under the newest secret. */
  hmac(algorithm: Algorithm, message: string | Uint8Array): string;
  hmacBase64(algorithm: Algorithm, message: string | Uint8Array): string;
  /** One for each secret that signs now, newest first. */
  hmacEach(algorithm: Algorithm, message: string | Uint8Array): string[];
  hmacEachBase64(algorithm: Algorithm, message: string | Uint8Array): string[];
}

export type Algorithm = "sha1" | "sha256" | "sha512";
