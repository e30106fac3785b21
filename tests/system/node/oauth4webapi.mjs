// Everything that oauth4webapi knows and a machine client needs, strictly checked by it.
import assert from 'node:assert/strict'
import * as oauth from 'oauth4webapi'

const issuer = new URL(process.env.GATEWAY)
const http = { [oauth.allowInsecureRequests]: true }

const as = await oauth.processDiscoveryResponse(
  issuer,
  await oauth.discoveryRequest(issuer, { ...http, algorithm: 'oauth2' }),
)

// Discovery of a resource (RFC 9728), as MCP clients do.
const resource = new URL('/api', issuer)
const described = await oauth.processResourceDiscoveryResponse(
  resource,
  await oauth.resourceDiscoveryRequest(resource, http),
)
assert.deepEqual(described.authorization_servers, [as.issuer])

// Registration (RFC 7591), with a key of its own.
const keys = await oauth.generateKeyPair('ES256', { extractable: true })
const jwk = await crypto.subtle.exportKey('jwk', keys.publicKey)
async function register(metadata) {
  return oauth.processDynamicClientRegistrationResponse(
    await oauth.dynamicClientRegistrationRequest(as, metadata, {
      ...http,
      initialAccessToken: process.env.REGISTRATION_TOKEN,
    }),
  )
}
const exchange = 'urn:ietf:params:oauth:grant-type:token-exchange'
const withSecret = await register({ client_name: 'basic' })
const withPost = await register({ token_endpoint_auth_method: 'client_secret_post' })
const withKey = await register({
  token_endpoint_auth_method: 'private_key_jwt',
  jwks: { keys: [{ ...jwk, alg: 'ES256', use: 'sig', kid: 'k' }] },
  grant_types: ['client_credentials', exchange],
  access_token_format: 'jwt',
})

const ways = [
  [withSecret, oauth.ClientSecretBasic(withSecret.client_secret)],
  [withPost, oauth.ClientSecretPost(withPost.client_secret)],
  [withKey, oauth.PrivateKeyJwt({ key: keys.privateKey, kid: 'k' })],
]

async function getToken([client, authentication], parameters = {}, options = {}) {
  return oauth.processClientCredentialsResponse(
    as,
    client,
    await oauth.clientCredentialsGrantRequest(as, client, authentication, parameters, {
      ...http,
      ...options,
    }),
  )
}

// Client credentials, introspection, use and revocation, by each way to authenticate.
for (const way of ways) {
  const [client, authentication] = way
  const { access_token, token_type, scope } = await getToken(way)
  assert.equal(token_type, 'bearer')
  assert.equal(scope, 'orders:read')
  const answer = await oauth.protectedResourceRequest(
    access_token, 'GET', new URL('/api/x', issuer), undefined, undefined, http,
  )
  assert.equal(await answer.text(), 'ok')
  const introspect = async () =>
    oauth.processIntrospectionResponse(
      as, client, await oauth.introspectionRequest(as, client, authentication, access_token, http),
    )
  assert.equal((await introspect()).client_id, client.client_id)
  await oauth.processRevocationResponse(
    await oauth.revocationRequest(as, client, authentication, access_token, http),
  )
  assert.deepEqual(await introspect(), { active: false })
}

// A JWT for a resource, verified by the keys that the gateway publishes (RFC 9068).
const jwt = await getToken(ways[2], { resource: resource.href })
const claims = await oauth.validateJwtAccessToken(
  as,
  new Request(resource, { headers: { authorization: `Bearer ${jwt.access_token}` } }),
  resource.href,
  http,
)
assert.equal(claims.client_id, withKey.client_id)

// DPoP at the token endpoint and on a route (RFC 9449).
const dpopKeys = await oauth.generateKeyPair('ES256')
const DPoP = oauth.DPoP(withSecret, dpopKeys)
const bound = await getToken(ways[0], {}, { DPoP })
assert.equal(bound.token_type, 'dpop')
const shown = await oauth.protectedResourceRequest(
  bound.access_token, 'GET', new URL('/api/x', issuer), undefined, undefined, { ...http, DPoP },
)
assert.equal(await shown.text(), 'ok')
await assert.rejects(
  oauth.protectedResourceRequest(
    bound.access_token, 'GET', new URL('/api/x', issuer), undefined, undefined, http,
  ),
  oauth.WWWAuthenticateChallengeError,
)

// Token exchange (RFC 8693).
const subject = await getToken(ways[0])
const exchanged = await oauth.processGenericTokenEndpointResponse(
  as,
  withKey,
  await oauth.genericTokenEndpointRequest(
    as, withKey, ways[2][1], exchange,
    {
      subject_token: subject.access_token,
      subject_token_type: 'urn:ietf:params:oauth:token-type:access_token',
    },
    http,
  ),
)
assert.equal(exchanged.issued_token_type, 'urn:ietf:params:oauth:token-type:access_token')

// Errors are understood.
await assert.rejects(getToken([withSecret, oauth.ClientSecretBasic('wrong')]), (error) => {
  assert.equal(error.status, 401)
  assert.equal(error.cause[0].scheme, 'basic')
  return true
})
await assert.rejects(getToken(ways[0], { scope: 'nonsense' }), (error) => {
  assert.equal(error.error, 'invalid_scope')
  return true
})
console.log('all is well')
