// simple-oauth2: client credentials with either way to send them, and the refusal.
import assert from 'node:assert/strict'
import { ClientCredentials } from 'simple-oauth2'

const { GATEWAY, CLIENT_ID, CLIENT_SECRET } = process.env

function make(authorizationMethod, secret = CLIENT_SECRET) {
  return new ClientCredentials({
    client: { id: CLIENT_ID, secret },
    auth: { tokenHost: GATEWAY, tokenPath: '/token', revokePath: '/revoke' },
    options: { authorizationMethod },
  })
}

for (const authorizationMethod of ['header', 'body']) {
  const accessToken = await make(authorizationMethod).getToken({ scope: 'orders:read' })
  assert.equal(accessToken.expired(), false)
  const answer = await fetch(new URL('/api/x', GATEWAY), {
    headers: { authorization: `Bearer ${accessToken.token.access_token}` },
  })
  assert.equal(await answer.text(), 'ok')
}
await assert.rejects(make('header', 'wrong').getToken({}), (error) => {
  assert.equal(error.output.statusCode, 401)
  assert.equal(error.data.payload.error, 'invalid_client')
  return true
})
console.log('all is well')
