// openid-client, by discovery: client credentials, introspection, revocation, DPoP, exchange.
import assert from 'node:assert/strict'
import * as client from 'openid-client'

const issuer = new URL(process.env.GATEWAY)
const { CLIENT_ID, CLIENT_SECRET } = process.env
const options = { algorithm: 'oauth2', execute: [client.allowInsecureRequests] }

for (const way of [client.ClientSecretBasic(CLIENT_SECRET), client.ClientSecretPost(CLIENT_SECRET)]) {
  const config = await client.discovery(issuer, CLIENT_ID, undefined, way, options)
  const tokens = await client.clientCredentialsGrant(config, { scope: 'orders:write' })
  assert.equal(tokens.scope, 'orders:write')
  assert.ok(tokens.expiresIn() > 3500)
  const url = new URL('/api/write', issuer)
  const answer = await client.fetchProtectedResource(config, tokens.access_token, url, 'GET')
  assert.equal(await answer.text(), 'ok')
  assert.equal((await client.tokenIntrospection(config, tokens.access_token)).active, true)
  await client.tokenRevocation(config, tokens.access_token)
  assert.equal((await client.tokenIntrospection(config, tokens.access_token)).active, false)

  const DPoP = client.getDPoPHandle(config, await client.randomDPoPKeyPair())
  const bound = await client.clientCredentialsGrant(config, {}, { DPoP })
  assert.equal(bound.token_type, 'dpop')
  const shown = await client.fetchProtectedResource(
    config, bound.access_token, new URL('/api/x', issuer), 'GET', undefined, undefined, { DPoP },
  )
  assert.equal(await shown.text(), 'ok')

  const exchanged = await client.genericGrantRequest(
    config,
    'urn:ietf:params:oauth:grant-type:token-exchange',
    {
      subject_token: (await client.clientCredentialsGrant(config)).access_token,
      subject_token_type: 'urn:ietf:params:oauth:token-type:access_token',
    },
  )
  assert.equal(exchanged.token_type, 'bearer')
}
console.log('all is well')
